"""What every network must do; a test of a network inherits it.

    from network_tester import NetworkTester

    class TestMyNetwork(NetworkTester):
        name = "my-network"                    # as registered
        options = {"base_filters": 4}          # a small one: the tests run on one core
        size = (16, 24)                        # of a sample: rows and columns, or three axes
        published = {"my-network": (401_666, 403_556)}  # name: (trainable, keras_total)

The preserved output lies in `preserved/<name>.json`. Where it is missing, the test writes it and
fails; so to renew it after a wanted change, delete the file and run the test twice:

    rm tests/networks/preserved/monet.json
    python -m pytest tests/networks -k preserved    # writes, fails
    python -m pytest tests/networks -k preserved    # compares
"""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.export import Dim

from leanseg.errors import GeometryError, RecipeError
from leanseg.networks import build, count_parameters

BATCH_NORMS = nn.BatchNorm2d | nn.BatchNorm3d
INSTANCE_NORMS = nn.InstanceNorm2d | nn.InstanceNorm3d
PRESERVED = Path(__file__).parent / "preserved"


class NetworkTester:
    """Tests of one network; the class attributes say which."""

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    size: ClassVar[tuple[int, ...]]
    published: ClassVar[dict[str, tuple[int, int]]] = {}
    # Fewest multiples of `size_divisor` along an axis that `torch.export` may count on.
    fewest_blocks: ClassVar[int] = 1
    # Parameters (a pattern) whose gradient is zero by construction: the normalisation behind
    # them takes them out again.
    without_gradient: ClassVar[str] = "nothing"

    @classmethod
    def make(cls, in_channels: int = 1, out_channels: int = 1, seed: int = 0) -> nn.Module:
        """A network with seeded weights and, unlike a new one, normalisation that does much."""
        generator = torch.Generator().manual_seed(seed)
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        network = build(cls.name, **channels, **cls.options, generator=generator)
        for layer in network.modules():
            if isinstance(layer, BATCH_NORMS | INSTANCE_NORMS) and layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
                nn.init.uniform_(layer.bias, -0.5, 0.5, generator=generator)
            if isinstance(layer, BATCH_NORMS):
                nn.init.uniform_(layer.running_mean, -0.5, 0.5, generator=generator)
                nn.init.uniform_(layer.running_var, 0.5, 1.5, generator=generator)
        cls.prepare(network, generator)
        return network.eval()

    @classmethod
    def prepare(cls, network: nn.Module, generator: torch.Generator) -> None:
        """What else must not stay as a new network has it, such as a last layer of zeros."""

    @classmethod
    def divisors(cls, network: nn.Module) -> tuple[int, ...]:
        """What each spatial size must be a multiple of."""
        divisor = network.size_divisor
        return divisor if isinstance(divisor, tuple) else (divisor,) * len(cls.size)

    @classmethod
    def images(cls, batch: int = 2, channels: int = 1, scale: int = 1) -> torch.Tensor:
        """A seeded batch (B, C, *size), the size times `scale`."""
        shape = (batch, channels, *(scale * length for length in cls.size))
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    @pytest.fixture(autouse=True)
    def _seeded_and_fresh(self):
        torch.manual_seed(2)  # dropout
        yield
        torch.compiler.reset()

    def test_counts_are_the_published_ones(self):
        for name, counts in self.published.items():
            with torch.device("meta"):
                network = build(name)
            assert tuple(count_parameters(network)) == counts, name

    @pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 1), (1, 3), (4, 1), (3, 14)])
    def test_channels_and_classes(self, in_channels, out_channels):
        network = self.make(in_channels, out_channels)
        with torch.no_grad():
            logits = network(self.images(channels=in_channels))
        assert logits.shape == (2, out_channels, *self.size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
        # Logits, not probabilities.
        assert logits.min() < 0 or logits.max() > 1

    def test_maps(self):
        network, images = self.make(out_channels=3), self.images()
        with torch.no_grad():
            maps, logits = network.all_maps(images), network(images)
        assert len(maps) == network.n_maps
        assert all(each.shape == logits.shape for each in maps)
        if network.n_maps == 1:
            assert torch.equal(maps[0], logits)

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_every_parameter_learns(self, channels_last):
        memory_format = torch.contiguous_format
        if channels_last:
            memory_format = {2: torch.channels_last, 3: torch.channels_last_3d}[len(self.size)]
        network = self.make(out_channels=3).train().to(memory_format=memory_format)
        # Some feed a map that is coarser than the last alone.
        maps = torch.stack(network.all_maps(self.images().to(memory_format=memory_format)))
        (maps * torch.randn(maps.shape)).sum().backward()
        felt = {name: parameter.grad for name, parameter in network.named_parameters()}
        largest = max(gradient.abs().max().item() for gradient in felt.values())
        for name, gradient in felt.items():
            assert gradient is not None, name
            assert gradient.isfinite().all(), name
            if re.fullmatch(self.without_gradient, name):
                assert gradient.abs().max() < 1e-3 * largest, name
            else:
                assert gradient.count_nonzero() > 0, name

    def test_gradient_is_that_of_finite_differences(self):
        # In-place activations must leave autograd what it needs.
        network = self.make().double().train()
        for layer in network.modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd):
                layer.p = 0.0
        images = self.images(batch=1).double()
        direction = torch.randn(images.shape, dtype=torch.float64)
        weights = torch.randn(1, 1, *self.size, dtype=torch.float64)
        images.requires_grad_()
        (gradient,) = torch.autograd.grad((network(images) * weights).sum(), images)
        step = 1e-7  # short, so as not to step over a kink of ReLU or the pooling
        with torch.no_grad():
            ahead, behind = (
                (network(images + sign * step * direction) * weights).sum() for sign in (1, -1)
            )
        expected = (ahead - behind) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-4, atol=1e-4)

    def test_odd_sizes(self):
        network = self.make()
        divisors = self.divisors(network)
        multiples = str(divisors[0]) if len(set(divisors)) == 1 else " x ".join(map(str, divisors))
        with torch.no_grad():
            for axis, divisor in enumerate(divisors):
                size = list(self.size)
                size[axis] += divisor
                assert network(torch.zeros(1, 1, *size)).shape == (1, 1, *size)
                if divisor == 1:
                    continue
                size[axis] -= 1
                with pytest.raises(GeometryError, match=f"multiples of {multiples}.*{size[axis]}"):
                    network(torch.zeros(1, 1, *size))

    def test_bad_options(self):
        for options in (
            {"no_such_option": 1},
            {"in_channels": 0},
            {"out_channels": 0},
            {"out_channels": 1.5},
        ):
            with pytest.raises(RecipeError, match=next(iter(options))):
                build(self.name, **{**self.options, **options})

    def test_same_generator_same_weights(self):
        first, second, other = self.make(seed=3), self.make(seed=3), self.make(seed=4)
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
        differing = [
            not torch.equal(one, two)
            for one, two in zip(first.parameters(), other.parameters(), strict=True)
            if one.ndim > 1
        ]
        assert all(differing)

    def test_save_and_load(self, tmp_path):
        network = self.make()
        save_file(network.state_dict(), tmp_path / "weights.safetensors")
        other = self.make(seed=5)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        images = self.images()
        with torch.no_grad():
            assert torch.equal(network(images), other(images))

    def test_evaluation_is_deterministic_and_training_is_not(self):
        network, images = self.make(), self.images()
        with torch.no_grad():
            assert torch.equal(network(images), network(images))
            if any(isinstance(each, nn.modules.dropout._DropoutNd) for each in network.modules()):
                network.train()
                assert not torch.equal(network(images), network(images))

    def test_samples_do_not_see_one_another(self):
        network, images = self.make(), self.images(batch=3)
        with torch.no_grad():
            together = network(images)
            alone = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_preserved_output(self):
        with torch.no_grad():
            logits = self.make(in_channels=2, out_channels=3)(self.images(channels=2))
        values = logits.flatten()[:: max(1, logits.numel() // 64)].tolist()
        path = PRESERVED / f"{self.name}.json"
        if not path.exists():
            content = {"options": self.options, "size": self.size, "values": values}
            path.write_text(json.dumps(content, indent=1) + "\n")
            pytest.fail(f"{path.name} was missing and is written now; run the test again")
        preserved = json.loads(path.read_text())
        assert preserved["options"] == json.loads(json.dumps(self.options))
        np.testing.assert_allclose(values, preserved["values"], rtol=1e-3, atol=1e-3)

    @classmethod
    def dynamic_shapes(cls, network: nn.Module) -> dict[int, Any]:
        """Any batch and any allowed size."""
        spatial = {
            axis + 2: divisor * Dim(f"blocks{axis}", min=cls.fewest_blocks, max=256)
            for axis, divisor in enumerate(cls.divisors(network))
        }
        return {0: Dim("batch", min=1, max=1024), **spatial}

    @classmethod
    @cache
    def exported(cls) -> tuple[nn.Module, torch.export.ExportedProgram]:
        """The network, and what `torch.export` makes of it: once for the tests that need it."""
        network = cls.make(out_channels=2)
        shapes = (cls.dynamic_shapes(network),)
        return network, torch.export.export(network, (cls.images(),), dynamic_shapes=shapes)

    @pytest.mark.slow
    def test_export(self):
        network, program = self.exported()
        other = self.images(batch=3, scale=2)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(other), network(other))

    @pytest.mark.slow
    def test_onnx(self, tmp_path):
        runtime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        network, program = self.exported()
        torch.onnx.export(program, f=tmp_path / "network.onnx", dynamo=True, verbose=False)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        session = runtime.InferenceSession(tmp_path / "network.onnx", options)
        other = self.images(batch=3, scale=2)
        (logits,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, network(other), rtol=1e-3, atol=1e-4)

    def check_compiled(self, backend: str) -> None:
        network, images = self.make(), self.images()
        compiled = torch.compile(network, backend=backend, fullgraph=True)
        gradients = []
        for each in (network, compiled):
            network.zero_grad()
            logits = each(images)
            logits.square().mean().backward()
            # What feeds a coarser map alone has none.
            felt = (p.grad for p in network.parameters() if p.grad is not None)
            gradients.append([logits.detach(), *(gradient.clone() for gradient in felt)])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)

    @pytest.mark.slow
    def test_compile(self):
        self.check_compiled("aot_eager")

    def test_compiled_network_refuses_sizes_as_well(self):
        network = self.make()
        if set(self.divisors(network)) == {1}:
            pytest.skip("takes every size")
        size = [length + 1 for length in self.size]
        with pytest.raises(GeometryError, match="multiples of"):
            torch.compile(network, backend="eager")(torch.zeros(1, 1, *size))

    @pytest.mark.slow
    def test_compile_to_machine_code(self):
        if not (shutil.which("g++") or shutil.which("clang++")):
            pytest.skip("torch.compile needs a C++ compiler, and none is installed")
        self.check_compiled("inductor")
