"""Networks of MONAI's and import paths."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

import plans
from leanseg.errors import GeometryError, MissingDependencyError, RecipeError
from leanseg.networks import build, build_trusted

EXAMPLES = "foreign_examples"


def example(name, **options):
    return build_trusted(f"{EXAMPLES}:{name}", **options)


def small(seed=0, **options):
    options = {"channels": [4, 8], "strides": [2], **options}
    generator = torch.Generator().manual_seed(seed)
    return build("monai:UNet", out_channels=3, generator=generator, **options)


class TestTrust:
    def test_an_import_path_is_refused_and_not_imported(self):
        sys.modules.pop("this", None)
        with pytest.raises(RecipeError, match=r"'this:s' is an import path.*not marked as trusted"):
            build("this:s")
        assert "this" not in sys.modules

    @pytest.mark.parametrize("name", ["os:system", "monai.networks.nets:UNet", "MONAI:UNet", ":"])
    def test_everything_with_a_colon_but_monai_is_refused(self, name):
        with pytest.raises(RecipeError, match="import path"):
            build(name)

    @pytest.mark.parametrize("name", ["monai:os", "monai:__builtins__", "monai:resnet50", "monai:"])
    def test_what_is_no_network_of_monai(self, name):
        pytest.importorskip("monai")
        with pytest.raises(RecipeError, match="is not one of MONAI's"):
            build(name)

    def test_options_cannot_give_permission(self):
        """The options of a model file reach `build` as keywords."""
        with pytest.raises(RecipeError, match="import path"):
            build(f"{EXAMPLES}:Plain", trusted=True)
        with pytest.raises(RecipeError, match="'trusted'"):
            build_trusted(f"{EXAMPLES}:Plain", trusted=True)
        with pytest.raises(RecipeError, match="'trusted'"):
            build("monet", trusted=True)

    def test_a_model_file_cannot_name_an_import_path(self, tmp_path):

        from leanseg.errors import ModelFileError
        from leanseg.inference import load_model
        from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model

        spec = NetworkSpec(name="this:s", in_channels=1, out_channels=1, options={"trusted": True})
        member = Member(spec, {"a": np.zeros(1, np.float32)})
        write_model(tmp_path / "evil.lsm", ModelFile.of(plans.slices((32, 32)), member))
        sys.modules.pop("this", None)
        with pytest.raises(ModelFileError, match="import path"):
            load_model(tmp_path / "evil.lsm", engine="torch")
        assert "this" not in sys.modules

    def test_a_model_file_with_a_network_of_monai(self):
        """The file alone rebuilds it, and the engine gives the network's probabilities."""
        pytest.importorskip("monai")
        from leanseg.inference.engines.torch_engine import TorchEngine
        from leanseg.modelfile import Member, NetworkSpec

        network = small().eval()
        options = {"channels": [4, 8], "strides": [2]}
        spec = NetworkSpec(name="monai:UNet", in_channels=1, out_channels=3, options=options)
        weights = {key: value.numpy() for key, value in network.state_dict().items()}
        engine = TorchEngine.of_member(Member(spec, weights), (1, 1, 16, 16))
        images = np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).softmax(1).numpy()
        np.testing.assert_allclose(engine.run(images), expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("trusted", [False, True])
    def test_weights_are_fetched_only_if_a_trusted_recipe_says_so(self, trusted, monkeypatch):
        nets = pytest.importorskip("monai.networks.nets")
        from foreign_examples import Downloading

        monkeypatch.setattr(nets, "UNet", Downloading)
        build_it = build_trusted if trusted else build
        assert build_it("monai:UNet").network.pretrained is False
        assert build_it("monai:UNet", pretrained=True).network.pretrained is trusted


class TestMonai:
    @pytest.fixture(autouse=True)
    def _monai(self):
        pytest.importorskip("monai")

    def test_gives_what_the_class_gives(self):
        from monai.networks.nets import UNet

        network = small().eval()
        other = UNet(2, 1, 3, (4, 8), (2,)).eval()
        other.load_state_dict(network.network.state_dict())
        images = torch.randn(2, 1, 8, 12)
        with torch.no_grad():
            assert torch.equal(network(images), other(images))

    def test_channels_axes_and_sizes(self):
        network = small(strides=[3], spatial_dims=3)
        assert (network.size_divisor, network.spatial_dims) == (3, 3)
        assert (network.in_channels, network.out_channels) == (1, 3)
        with torch.no_grad():
            assert network(torch.zeros(2, 1, 6, 9, 12)).shape == (2, 3, 6, 9, 12)
            with pytest.raises(GeometryError, match=r"'monai:UNet'.*multiples of 3.*6 x 8 x 12"):
                network(torch.zeros(2, 1, 6, 8, 12))
            with pytest.raises(GeometryError, match=r"of spatial_dims 3 takes.*3 axes, but got 2"):
                network(torch.zeros(2, 1, 6, 6))

    @pytest.mark.parametrize(
        ("name", "options", "divisor"),
        [
            ("AttentionUnet", {"channels": [4, 8, 16], "strides": [2, 2]}, 4),
            ("BasicUNetPlusPlus", {"features": [4, 4, 4, 4, 4, 4]}, 1),
            ("SegResNet", {"init_filters": 8}, 8),
            ("VNet", {}, 16),
            ("HighResNet", {}, 1),
        ],
    )
    def test_sizes_of_some(self, name, options, divisor):
        network = build(f"monai:{name}", **options)
        assert network.size_divisor == divisor

    def test_swin_unetr(self):
        pytest.importorskip("einops")
        network = build("monai:SwinUNETR", out_channels=2, feature_size=12, spatial_dims=3)
        assert network.size_divisor == 32
        with torch.no_grad():
            assert network.eval()(torch.zeros(1, 1, 64, 32, 32)).shape == (1, 2, 64, 32, 32)

    def test_a_network_of_one_size(self):
        options = {"feature_size": 4, "hidden_size": 48, "mlp_dim": 64, "num_heads": 4}
        network = build("monai:UNETR", img_size=[32, 48], **options).eval()
        assert network.size_divisor == (32, 48)
        with torch.no_grad():
            assert network(torch.zeros(1, 1, 32, 48)).shape == (1, 1, 32, 48)
        with pytest.raises(GeometryError, match="multiples of 32 x 48"):
            network(torch.zeros(1, 1, 48, 48))

    def test_deep_supervision_that_is_stacked_in_training(self):
        options = {
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 8, 16],
        }
        network = build("monai:DynUNet", deep_supervision=True, **options)
        images = torch.randn(2, 1, 16, 16)
        torch.testing.assert_close(network.train()(images), network.network(images)[:, 0])
        assert network.eval()(images).shape == (2, 1, 16, 16)

    def test_the_deepest_map_of_unetpp(self):
        features = [2, 2, 2, 2, 2, 2]
        network = build("monai:BasicUNetPlusPlus", deep_supervision=True, features=features)
        images = torch.randn(1, 1, 32, 32)
        maps = network.network(images)
        assert len(maps) == 4
        torch.testing.assert_close(network(images), maps[-1])

    @pytest.mark.parametrize(
        ("wrong", "right"), [("SwinUNETRR", "SwinUNETR"), ("unet", "UNet"), ("seg_resnet", None)]
    )
    def test_nearest_name(self, wrong, right):
        suggestion = rf"\(did you mean 'monai:{right}'\?\)" if right else "did you mean"
        with pytest.raises(RecipeError, match=suggestion):
            build(f"monai:{wrong}")

    def test_missing_options(self):
        with pytest.raises(RecipeError, match=r"'monai:UNet' refuses its options.*channels"):
            build("monai:UNet")

    def test_unknown_option(self):
        with pytest.raises(RecipeError, match=r"'monai:UNet' refuses its options.*'stride'"):
            small(stride=2)

    def test_refused_value(self):
        with pytest.raises(RecipeError, match=r"'monai:UNet' refuses its options \(.*strides"):
            small(strides=[2, 2, 2, 2][:0])

    def test_a_classifier(self):
        with pytest.raises(
            RecipeError, match=r"'monai:DenseNet121' gives no output that is logits"
        ):
            build("monai:DenseNet121")

    def test_without_monai(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'leanseg\[monai\]'"):
            build("monai:UNet")

    def test_seeded_start_leaves_the_global_generator(self):
        before = torch.get_rng_state()
        first, second, other = small(1), small(1), small(2)
        assert torch.equal(before, torch.get_rng_state())
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
        weights = [
            network.state_dict()["network.model.0.conv.weight"] for network in (first, other)
        ]
        assert not torch.equal(*weights)

    def test_export(self):
        network = small().eval()
        images = torch.randn(2, 1, 8, 12)
        size = {axis + 2: 2 * torch.export.Dim(f"n{axis}", min=2, max=64) for axis in (0, 1)}
        shapes = ({0: torch.export.Dim("batch", min=1, max=64), **size},)
        program = torch.export.export(network, (images,), dynamic_shapes=shapes)
        other = torch.randn(3, 1, 16, 20)
        torch.testing.assert_close(program.module()(other), network(other))


class TestImportPath:
    def test_usual_names_and_options(self):
        network = example("Plain", in_channels=2, out_channels=5, depth=4)
        assert network.network.depth == 4
        assert network(torch.zeros(1, 2, 7, 9)).shape == (1, 5, 7, 9)
        assert network.size_divisor == 1

    def test_a_function_with_any_options(self):
        assert example("with_any_options", depth=3).network.depth == 3

    def test_a_network_of_ours(self):
        network = build_trusted("leanseg.networks.unet:UNet", base_filters=2)
        assert network.size_divisor == 16

    def test_first_full_map_of_a_list(self):
        network, images = example("ManyMaps", out_channels=2), torch.randn(1, 1, 8, 8)
        assert torch.equal(network(images), network.network.layer(images))

    def test_first_full_map_of_a_dict(self):
        network, images = example("Named"), torch.randn(1, 1, 8, 8)
        assert torch.equal(network(images), 2 * network.network.layer(images))

    def test_stacked(self):
        network, images = example("Stacked", out_channels=2), torch.randn(1, 1, 8, 8)
        assert torch.equal(network(images), network.network.layer(images))

    def test_sizes_are_found_without_touching_the_network(self):
        network = example("Picky")
        assert network.size_divisor == 12
        assert not hasattr(network.network, "seen")
        assert network.training
        assert all(not parameter.is_meta for parameter in network.parameters())

    @pytest.mark.parametrize(("given", "kept"), [(24, 24), ([12, 24], (12, 24))])
    def test_stated_sizes(self, given, kept):
        assert example("Picky", size_divisor=given).size_divisor == kept

    @pytest.mark.parametrize("given", [0, -4, 1.5, True, "8", [8], [8, 0], [8, 8, 8]])
    def test_refused_sizes(self, given):
        with pytest.raises(RecipeError, match="size_divisor"):
            example("Picky", size_divisor=given)

    @pytest.mark.parametrize("given", [1, 4, "2", True, None])
    def test_refused_axes(self, given):
        with pytest.raises(RecipeError, match="spatial_dims"):
            example("Plain", spatial_dims=given)

    def test_no_segmentation(self):
        with pytest.raises(RecipeError, match="Classifier' gives no output that is logits"):
            example("Classifier")

    def test_no_size_fits(self):
        with pytest.raises(RecipeError, match=r"\(not today\); if it takes others.*size_divisor"):
            example("Hopeless")

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("no_such_module:Net", "module 'no_such_module' cannot be imported"),
            (f"{EXAMPLES}:Plane", "has no class 'Plane' (did you mean 'Plain'?)"),
            (f"{EXAMPLES}:NOT_CALLABLE", "has no class 'NOT_CALLABLE'"),
            (f"{EXAMPLES}:Plain:x", "is not an import path"),
            ("../evil:Net", "is not an import path"),
            (f"{EXAMPLES}:no_module", "gives a str, not a torch.nn.Module"),
            ("builtins:dict", "gives a dict, not a torch.nn.Module"),
        ],
    )
    def test_bad_paths(self, path, message):
        with pytest.raises(RecipeError) as caught:
            build_trusted(path)
        assert message in str(caught.value)

    def test_missing_package(self):
        with pytest.raises(MissingDependencyError, match="no_such_package"):
            example("needing_a_package")

    def test_start_without_memory_is_real(self):
        """The engine builds networks on "meta"; other people's constructors need numbers."""
        with torch.device("meta"):
            network = example("Restless")
        assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 1, 4, 4)

    def test_weights_travel(self):
        first, second = example("Plain"), example("Plain")
        second.load_state_dict(first.state_dict())
        images = torch.randn(1, 1, 4, 4)
        assert torch.equal(first(images), second(images))
        assert isinstance(first, nn.Module)
        assert set(first.state_dict()) == {"network.layer.weight", "network.layer.bias"}
