from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_tester import NetworkTester
from scipy.ndimage import correlate
from torch import nn

from leanseg.errors import GeometryError
from leanseg.networks import build, count_parameters
from leanseg.networks.msd import MSDNet
from leanseg.networks.msd_dense import mirrored


class MSDTester(NetworkTester):
    @classmethod
    def prepare(cls, network, generator):
        # A new network's last layer is zero: logits and all gradients but its own would be too.
        nn.init.normal_(network.head.weight, generator=generator)


class TestMSD2D(MSDTester):
    name = "msd-2d"
    options: ClassVar = {"depth": 6, "width": 2, "max_dilation": 4}
    size = (9, 14)
    # Instance normalisation takes the bias of the convolution ahead of it out again.
    without_gradient = r"layers\.\d+\.conv\.bias"


class TestMSD3D(MSDTester):
    name = "msd-3d"
    options: ClassVar = {"depth": 4, "boundary": "zero", "instance_norm": False}
    size = (7, 6, 5)


@given(
    c_in=st.integers(1, 5),
    c_out=st.integers(1, 6),
    d=st.integers(1, 25),
    w=st.integers(1, 4),
    n=st.sampled_from([2, 3]),
    instance_norm=st.booleans(),
    mirror=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_count_formula(c_in, c_out, d, w, n, instance_norm, mirror):
    with torch.device("meta"):
        network = build(
            f"msd-{n}d",
            in_channels=c_in,
            out_channels=c_out,
            depth=d,
            width=w,
            instance_norm=instance_norm,
            boundary="mirror" if mirror else "zero",
        )
    expected = 3**n * w * (d * c_in + w * d * (d - 1) // 2) + d * w + (c_in + w * d) * c_out + c_out
    expected += 2 * w * d * instance_norm
    assert count_parameters(network) == (expected, expected)


def by_hand(network: MSDNet, images: np.ndarray) -> np.ndarray:
    """Section 2.3 of the specification in numpy and scipy, one sample (C, *spatial) at a time."""
    weights = {name: value.detach().numpy() for name, value in network.named_parameters()}
    features = list(images)
    for layer in range(len(network.layers)):
        dilation = layer % 10 + 1
        outputs = []
        for number, kernel in enumerate(weights[f"layers.{layer}.conv.weight"]):
            spread = np.zeros((len(kernel), *(2 * dilation + 1 for _ in kernel.shape[1:])))
            spread[(slice(None), *(slice(None, None, dilation) for _ in kernel.shape[1:]))] = kernel
            # scipy calls the mirror with the edge in it "reflect".
            mode = "reflect" if network.mirror else "constant"
            values = sum(correlate(f, k, mode=mode) for f, k in zip(features, spread, strict=True))
            values = values + weights[f"layers.{layer}.conv.bias"][number]
            if f"layers.{layer}.norm.weight" in weights:
                values = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
                values = values * weights[f"layers.{layer}.norm.weight"][number]
                values = values + weights[f"layers.{layer}.norm.bias"][number]
            outputs.append(np.where(values > 0, values, 0.01 * values))
        features += outputs
    head = weights["head.weight"].reshape(len(weights["head.weight"]), -1)
    logits = np.einsum("kc,c...->k...", head, np.stack(features))
    return logits + weights["head.bias"].reshape(-1, *(1 for _ in images.shape[1:]))


def drawn(n: int, boundary: str, instance_norm: bool, depth: int = 12, width: int = 2) -> MSDNet:
    """A network in float64 whose every parameter is drawn; the dilations go beyond the images."""
    options = {"depth": depth, "width": width, "boundary": boundary}
    network = build(
        f"msd-{n}d", in_channels=2, out_channels=3, instance_norm=instance_norm, **options
    ).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return network


CASES = pytest.mark.parametrize(
    ("n", "boundary", "instance_norm"),
    [(n, boundary, norm) for n in (2, 3) for boundary in ("mirror", "zero") for norm in (1, 0)],
)
SIZES = {2: (7, 13), 3: (7, 4, 12)}


@CASES
def test_value_by_hand(n, boundary, instance_norm, rng):
    network = drawn(n, boundary, bool(instance_norm))
    images = rng.normal(size=(2, 2, *SIZES[n]))
    expected = np.stack([by_hand(network, image) for image in images])
    with torch.no_grad():
        result = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def naive(network: MSDNet, images: torch.Tensor) -> torch.Tensor:
    """Dense concatenation of what torch's own convolutions and normalisations give."""
    features = images
    for layer, dilation in zip(network.layers, network.dilations, strict=True):
        padded = features
        for axis in range(2, images.ndim):
            if network.mirror:
                line = np.pad(np.arange(images.shape[axis]), dilation, mode="symmetric")
                padded = padded.index_select(axis, torch.from_numpy(line))
        padding = 0 if network.mirror else dilation
        convolve = nn.functional.conv2d if images.ndim == 4 else nn.functional.conv3d
        values = convolve(
            padded, layer.conv.weight, layer.conv.bias, padding=padding, dilation=dilation
        )
        values = values if layer.norm is None else layer.norm(values)
        features = torch.cat((features, nn.functional.leaky_relu(values, 0.01)), dim=1)
    return network.head(features)


@CASES
def test_value_and_every_gradient_of_the_naive_form(n, boundary, instance_norm):
    network = drawn(n, boundary, bool(instance_norm))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 2, *SIZES[n], dtype=torch.float64, generator=generator)
    weights = torch.randn(2, 3, *SIZES[n], dtype=torch.float64, generator=generator)
    inputs = {"images": images.requires_grad_(), **dict(network.named_parameters())}
    results = []
    for form in (network, lambda images: naive(network, images)):
        logits = form(images)
        gradients = torch.autograd.grad((logits * weights).sum(), list(inputs.values()))
        results.append([logits.detach(), *gradients])
    for name, lean, plain in zip(["logits", *inputs], *results, strict=True):
        atol = 1e-10 * plain.abs().max().clamp(min=1).item()
        torch.testing.assert_close(
            lean, plain, rtol=1e-9, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
        if instance_norm and name.endswith("conv.bias"):
            assert not lean.any(), name
        else:
            assert lean.abs().max() > 1e-6, name


@pytest.mark.parametrize(
    ("n", "boundary", "instance_norm"), [(2, "mirror", 1), (2, "zero", 0), (3, "mirror", 0)]
)
def test_the_traced_form_is_the_same(n, boundary, instance_norm):
    network = drawn(n, boundary, bool(instance_norm)).eval()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 2, *SIZES[n], dtype=torch.float64, generator=generator)
    traced = torch.export.export(network, (images,)).module()
    found, expected = traced(images), naive(network, images)
    atol = 1e-10 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=atol)


def test_gradients_where_some_parameters_are_frozen():
    network = drawn(2, "mirror", True, depth=4)
    network.layers[:2].requires_grad_(False)
    images = torch.randn(1, 2, 7, 13, dtype=torch.float64)
    learning = [each for each in network.parameters() if each.requires_grad]
    expected = torch.autograd.grad(naive(network, images).square().sum(), learning)
    torch.testing.assert_close(
        torch.autograd.grad(network(images).square().sum(), learning), expected
    )
    network.requires_grad_(False)
    assert not network(images).requires_grad
    images.requires_grad_()
    (expected,) = torch.autograd.grad(naive(network, images).square().sum(), images)
    (gradient,) = torch.autograd.grad(network(images).square().sum(), images)
    torch.testing.assert_close(gradient, expected)


def test_backward_may_run_twice():
    network = drawn(2, "mirror", True, depth=4)
    loss = network(torch.randn(1, 2, 7, 13, dtype=torch.float64)).square().sum()
    first, second = (
        torch.autograd.grad(loss, list(network.parameters()), retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["msd-2d", "msd-3d"])
def test_memory_kept_for_the_backward_pass_grows_with_the_depth_alone(name):
    size = (24, 24) if name == "msd-2d" else (12, 12, 8)
    kept = {}
    for depth in (20, 40):
        network = build(name, depth=depth)
        tensors: dict[int, int] = {}

        def note(tensor: torch.Tensor, tensors: dict[int, int] = tensors) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if tensor.ndim == len(size) + 2 and tensor.shape[2:] == size:
                tensors[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = network(torch.randn(1, 1, *size)).sum()
        kept[depth] = sum(tensors.values())
        del loss
    # Outputs and normalised values of every layer, the image twice at most.
    assert kept[40] <= 4 * np.prod(size) * (2 * 40 + 2)
    assert kept[20] > 4 * np.prod(size) * 20
    assert kept[40] < 2.1 * kept[20]


def test_autocast_does_not_lower_the_precision():
    network = drawn(2, "mirror", True, depth=4).float()
    images = torch.randn(1, 2, 7, 13)
    with torch.no_grad():
        expected = network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(network(images), expected)
            assert network(images.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("instance_norm", [True, False])
def test_weights_in_bfloat16(instance_norm):
    network = drawn(2, "zero", instance_norm, depth=4)
    images = torch.randn(1, 2, 12, 13, dtype=torch.float64)
    expected = network(images)
    expected.square().mean().backward()
    gradient = network.head.weight.grad.clone()
    network = network.bfloat16()
    network.zero_grad()
    logits = network(images.bfloat16())
    logits.float().square().mean().backward()
    assert logits.dtype == torch.bfloat16
    scale = expected.abs().max().item()
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=0.05 * scale)
    scale = gradient.abs().max().item()
    difference = network.head.weight.grad.double() - gradient
    assert difference.abs().max() < 0.05 * scale
    assert all(each.grad.isfinite().all() for each in network.parameters())


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_mirror_is_numpys_symmetric_padding(size):
    line = np.arange(size)
    places = mirrored(-10, size + 10, size).numpy()
    np.testing.assert_array_equal(line[places], np.pad(line, 10, mode="symmetric"))


def test_dilations():
    network = build("msd-2d", depth=23)
    expected = [*range(1, 11), *range(1, 11), 1, 2, 3]
    assert list(network.dilations) == expected
    assert build("msd-2d", depth=5, max_dilation=2).dilations == (1, 2, 1, 2, 1)


@pytest.mark.parametrize("n", [2, 3])
def test_start(n):
    """Variance 2 / (3^n (c_in + w (d - 1)) + c_out) for all layers, biases and head zero."""
    network = build(f"msd-{n}d", in_channels=2, out_channels=3, depth=40, width=2)
    weights = torch.cat([layer.conv.weight.flatten() for layer in network.layers])
    expected = (2 / (3**n * (2 + 2 * 39) + 3)) ** 0.5
    assert weights.std().item() == pytest.approx(expected, rel=0.02)
    assert not network.head.weight.any()
    assert not network.head.bias.any()
    assert not any(layer.conv.bias.any() for layer in network.layers)


def test_refused_axes():
    with pytest.raises(GeometryError, match="MS-D Net takes images of 3 axes, but got 2"):
        build("msd-3d", depth=1)(torch.zeros(1, 1, 16, 16))


PEAK = """
import resource, sys, torch
from leanseg.networks import build
torch.set_num_threads(1)
network = build("msd-3d", out_channels=3, boundary=sys.argv[1], instance_norm=sys.argv[2] == "True")
optimiser = torch.optim.Adam(network.parameters())
for _ in range(2):
    logits = network(torch.randn(1, 1, 128, 128, 16))
    torch.nn.functional.cross_entropy(logits, torch.ones(1, 128, 128, 16).long()).backward()
    optimiser.step()
    optimiser.zero_grad()
assert network.head.weight.any() and len(network.layers) == 100
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / 2**20 if sys.platform != "darwin" else peak / 2**30)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("boundary", "instance_norm"), [("mirror", True), ("zero", False)])
def test_training_in_3d_at_full_depth_stays_under_4_gb(boundary, instance_norm):
    """Whole process, Python and torch in it, two steps at 128 x 128 x 16, depth 100."""
    command = [sys.executable, "-c", PEAK, boundary, str(instance_norm)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak_gib = float(done.stdout)
    print(f"peak {peak_gib:.2f} GiB ({boundary}, normalised: {instance_norm})")
    assert peak_gib < 4e9 / 2**30
