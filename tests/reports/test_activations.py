"""The activation study of a whole model file: which inputs, which layers, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from leanseg.errors import LeansegError, ModelFileError
from leanseg.frames import ScanSource, ScanView
from leanseg.inference import load_model
from leanseg.inference.engines.torch_engine import built
from leanseg.modelfile import Member, ModelFile, NetworkSpec, read_model, write_model
from leanseg.networks import build
from leanseg.plan import Plan
from leanseg.reports.activation_figure import activation_figure, maps_figure, write_figure
from leanseg.reports.activation_layers import watch_layers
from leanseg.reports.activations import study_activations
from leanseg.volumes import Volume
from plans import patches, slices, whole


def model_file(
    path: Path, name: str = "monet", members: int = 1, change=None, plan: Plan | None = None
) -> Path:
    plan = plan or slices()
    made = []
    for member in range(members):
        generator = torch.Generator().manual_seed(member)
        options = {"base_filters": 4} if name in ("monet", "unet") else {"depth": 4}
        network = build(name, generator=generator, **options)
        weights = {key: value.numpy() for key, value in network.state_dict().items()}
        if change:
            change(weights)
        spec = NetworkSpec(name=name, in_channels=1, out_channels=1, options=options)
        made.append(Member(spec, weights))
    write_model(path, ModelFile.of(plan, *made))
    return path


@pytest.fixture
def scan(rng) -> Volume:
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    return Volume(rng.normal(0, 150, (40, 36, 9)).astype(np.int16), affine)


def test_the_study_is_that_of_the_chosen_slices(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg")
    file = read_model(path)
    study = study_activations(load_model(path), scan, max_inputs=3, name="ct")
    assert (study.inputs, study.n_inputs) == ((1, 4, 7), 9)
    source = ScanSource(ScanView(scan, "LPS"), file.plan.final)
    direct = watch_layers(
        built(file.members[0], False), [source.planes(k, k + 1) for k in (1, 4, 7)]
    )
    assert [layer.name for layer in study.layers] == [layer.name for layer in direct]
    for one, other in zip(study.layers, direct, strict=True):
        assert (one.mean, one.sd, one.dead) == (other.mean, other.sd, other.dead)
    assert [layer.name for layer in study.shown.values()] == [
        "encoder1.conv.elu",
        "bottleneck.1.dilated3.elu",
        "decoder2.rddc.dilated1.elu",
    ]
    assert list(study.shown) == ["early", "middle", "late"]


def test_a_channel_that_is_killed_is_found(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg", "unet")
    names = [name for name in read_model(path).members[0].weights if name.startswith("encoder.0.")]
    first = sorted(name for name in names if name.endswith(".weight"))[0].rpartition(".")[0]

    def kill(weights: dict) -> None:
        # The ReLU of this channel sees nothing but its bias.
        weights[f"{first}.weight"][2] = 0
        weights[f"{first}.bias"][2] = -1

    before = study_activations(load_model(path), scan)
    model_file(path, "unet", change=kill)
    after = study_activations(load_model(path), scan)
    assert 2 not in before.layers[0].dead
    assert after.layers[0].dead == (*sorted({*before.layers[0].dead, 2}),)
    assert after.n_dead == sum(len(layer.dead) for layer in after.layers)
    assert after.n_channels == before.n_channels


def test_an_ensemble_is_studied_by_its_first(tmp_path: Path, scan: Volume) -> None:
    alone = study_activations(load_model(model_file(tmp_path / "a.leanseg")), scan)
    both = study_activations(load_model(model_file(tmp_path / "b.leanseg", members=2)), scan)
    assert both.members == 2
    assert [layer.mean for layer in both.layers] == [layer.mean for layer in alone.layers]


def test_a_network_that_sees_a_whole_region(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg", "msd-3d", plan=whole((16, 16, 8)))
    study = study_activations(load_model(path), scan)
    assert (study.inputs, study.n_inputs) == ((0,), 1)
    assert study.layers[0].size == (16, 16, 8)


def test_a_network_that_sees_tiles(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg", "msd-3d", plan=patches((16, 16, 8)))
    study = study_activations(load_model(path), scan, max_inputs=3)
    assert len(study.inputs) == 3
    assert study.n_inputs > 10
    assert study.layers[0].size == (16, 16, 8)
    assert study.layers[0].n_values == 3 * 16 * 16 * 8


def test_diverged_weights(tmp_path: Path, scan: Volume) -> None:
    def diverge(weights: dict) -> None:
        weights["bottleneck.0.conv.weight"][:] = 1e38

    path = model_file(tmp_path / "m.leanseg", change=diverge)
    with pytest.raises(ModelFileError, match=r"m\.leanseg: layer bottleneck\.0\.elu answers with"):
        study_activations(load_model(path), scan)


def test_voxels_that_are_no_numbers(tmp_path: Path, scan: Volume) -> None:
    array = scan.array.astype(np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(LeansegError, match="1 NaN"):
        study_activations(load_model(model_file(tmp_path / "m.leanseg")), scan.with_array(array))


def test_the_record_holds_everything(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg")
    file = read_model(path)
    study = study_activations(load_model(path), scan, name="ct")
    record = json.loads(json.dumps(study.to_json(), allow_nan=False))
    assert record["weights_sha256"] == file.weights_sha256
    assert record["inputs"] == list(range(9))
    for layer, stored in zip(study.layers, record["layers"], strict=True):
        assert stored["name"] == layer.name
        assert sum(stored["counts"]) == layer.n_values
        edges = np.array(stored["edges"])
        mean = np.average((edges[1:] + edges[:-1]) / 2, weights=stored["counts"])
        assert mean == pytest.approx(layer.mean, abs=edges[1] - edges[0])


@pytest.mark.parametrize(
    ("most", "expected"), [(1, (4,)), (2, (2, 6)), (9, tuple(range(9))), (None, tuple(range(9)))]
)
def test_inputs_are_evenly_spaced(tmp_path: Path, scan: Volume, most, expected) -> None:
    model = load_model(model_file(tmp_path / "m.leanseg"))
    assert study_activations(model, scan, max_inputs=most).inputs == expected


def test_the_figure(tmp_path: Path, scan: Volume) -> None:
    studies = [
        study_activations(load_model(model_file(tmp_path / f"{name}.leanseg", name)), scan)
        for name in ("monet", "unet")
    ]
    figure = activation_figure(studies)
    assert len(figure.axes) == 8
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0].startswith("early: encoder1.conv.elu\nELU, 4 channels of 32 x 32")
    write_figure(tmp_path / "a.png", studies)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_feature_maps_as_pictures(tmp_path: Path, scan: Volume) -> None:
    """Tiles lie upright, each on its own scale, gaps between them."""
    study = study_activations(load_model(model_file(tmp_path / "m.leanseg")), scan, max_inputs=3)
    assert study.maps.keys() == {"early", "middle", "late"}
    figure = maps_figure([study])
    shown, early = (axes.images[0].get_array() for axes in figure.axes[:2])
    image = study.image[0]
    upright = image[::-1] if study.orientation[0] == "R" else image
    upright = (upright[:, ::-1] if study.orientation[1] == "A" else upright).T
    scaled = (upright - image.min()) / np.ptp(image)
    np.testing.assert_allclose(shown, scaled, atol=1e-6)
    tile = early[: image.shape[1], : image.shape[0]]
    assert (tile.min(), tile.max()) == (0, 1)
    assert np.ma.getmaskarray(early)[image.shape[1]].all()
