from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from network_tester import NetworkTester
from torch import nn

from leanseg.errors import GeometryError
from leanseg.networks import build, count_parameters
from leanseg.networks.nnunet import ConvNormLReLU, topology

# Instance normalisation takes the bias of the convolution ahead of it out again.
CANCELLED = r".*\.conv\.bias"
MODES = {4: "bilinear", 5: "trilinear"}


class TestNNUNet2D(NetworkTester):
    name = "nnunet-2d"
    options: ClassVar = {"base_filters": 4, "shape": [32, 48], "max_pools": 3}
    size = (32, 48)
    without_gradient = CANCELLED
    fewest_blocks = 2


class TestNNUNet3D(NetworkTester):
    """Anisotropic: 4 x 4 x 2 is the size rule, and the first kernel is 3 x 3 x 1."""

    name = "nnunet-3d"
    options: ClassVar = {"base_filters": 4, "shape": [16, 24, 8], "spacing_mm": [1, 1, 3]}
    size = (16, 24, 8)
    without_gradient = CANCELLED
    fewest_blocks = 2


@pytest.mark.parametrize(
    ("name", "options", "classes", "count"),
    [
        ("nnunet-2d", {}, 2, 6_825_210),
        ("nnunet-2d", {}, 3, 6_825_240),
        ("nnunet-2d", {"max_pools": 5}, 2, 18_120_570),
        ("nnunet-2d", {"max_pools": 5}, 3, 18_120_600),
        ("nnunet-3d", {}, 2, 14_623_590),
        ("nnunet-3d", {}, 3, 14_623_620),
    ],
)
def test_counts_of_the_specification(name, options, classes, count):
    with torch.device("meta"):
        network = build(name, out_channels=classes, **options)
    assert count_parameters(network) == (count, count)


@pytest.mark.parametrize(
    ("shape", "spacing", "most", "pools", "kernels"),
    [
        # The two of the specification (section 2.2).
        ((128, 128), (1, 1), 4, ["22"] * 4, ["33"] * 5),
        ((128, 128, 16), (1, 1, 1), 4, ["222", "222", "221", "221"], ["333"] * 5),
        # Left to itself, the rule goes on down to 4 voxels.
        ((128, 128), (1, 1), 9, ["22"] * 5, ["33"] * 6),
        ((128, 128, 16), (1, 1, 1), 9, ["222", "222", *["221"] * 3], ["333"] * 6),
        # 5 mm against 0.8: ratio 6.25, 3.1, 1.56: two halvings in plane before z joins.
        (
            (64, 64, 16),
            (0.8, 0.8, 5),
            9,
            ["221", "221", "222", "222"],
            ["331", "331", *["333"] * 3],
        ),
        # 1.8 is alike, more is not. z is used up after one halving; its kernel stays 3.
        ((32, 32, 8), (1, 1, 1.8), 9, ["222", "221", "221"], ["333"] * 4),
        ((32, 32, 8), (1, 1, 1.81), 9, ["221", "222", "221"], ["331", *["333"] * 3]),
        # The finest axis is too short to be halved: the others do not wait for it.
        ((4, 32, 32), (0.1, 1, 1), 9, ["122"] * 3, [*["311"] * 3, "333"]),
        ((7, 7), (1, 1), 9, [], ["33"]),
        # 9 is padded to 10, then 5.
        ((9, 16), (1, 1), 9, ["22", "12"], ["33"] * 3),
    ],
)
def test_rule_for_halvings_and_kernels(shape, spacing, most, pools, kernels):
    found = topology(shape, spacing, most)
    assert ["".join(map(str, pool)) for pool in found.pools] == pools
    assert ["".join(map(str, kernel)) for kernel in found.kernels] == kernels
    expected = tuple(2 ** sum(pool[axis] == "2" for pool in pools) for axis in range(len(shape)))
    assert found.divisors == expected


def test_stages_of_the_default_network_in_3d():
    with torch.device("meta"):
        network = build("nnunet-3d")
        shapes, features = [], torch.zeros(1, 1, 128, 128, 16)
        for stage in network.encoder:
            features = stage(features)
            shapes.append(tuple(features.shape[1:]))
    assert shapes == [
        (30, 128, 128, 16),
        (60, 64, 64, 8),
        (120, 32, 32, 4),
        (240, 16, 16, 4),
        (320, 8, 8, 4),  # capped
    ]
    assert network.size_divisor == (16, 16, 4)
    assert [tuple(up.up.kernel_size) for up in network.decoder] == [
        (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2),
    ]  # fmt: skip


def test_size_divisor_is_one_number_where_the_axes_agree():
    assert build("nnunet-2d", base_filters=1).size_divisor == 16
    assert build("nnunet-2d", base_filters=1, max_pools=0).size_divisor == 1


def test_block_by_hand(rng):
    """1 x 1 convolution, then normalisation over space, then LeakyReLU, in numpy."""
    block = ConvNormLReLU(2, 3, (1, 1)).double()
    for value in block.parameters():
        value.data.copy_(torch.from_numpy(rng.normal(size=tuple(value.shape))))
    images = rng.normal(size=(2, 2, 5, 4))
    with torch.no_grad():
        result = block(torch.from_numpy(images)).numpy()
    weights = {name: value.detach().numpy() for name, value in block.named_parameters()}
    mixed = np.einsum("oc,bcij->boij", weights["conv.weight"][:, :, 0, 0], images)
    centred = mixed - mixed.mean(axis=(2, 3), keepdims=True)
    scaled = centred / np.sqrt(mixed.var(axis=(2, 3), keepdims=True) + 1e-5)
    affine = [weights[f"norm.{name}"][:, None, None] for name in ("weight", "bias")]
    values = scaled * affine[0] + affine[1]
    np.testing.assert_allclose(result, np.where(values > 0, values, 0.01 * values), rtol=1e-9)


def test_upsampled_features_stand_before_the_skip():
    up = build("nnunet-2d", base_filters=1, shape=(8, 8)).decoder[-1].eval()
    seen = []
    up.first.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    features, skip = torch.randn(1, 2, 4, 4), torch.full((1, 1, 8, 8), 2.0)
    with torch.no_grad():
        up(features, skip)
        torch.testing.assert_close(seen[0][:, :1], up.up(features))
    assert (seen[0][:, 1:] == 2.0).all()


def test_start():
    """He-normal: variance 2 / ((1 + 0.01^2) fan_in); biases zero."""
    network = build("nnunet-2d", base_filters=32, max_pools=2)
    first = network.encoder[1][1].conv
    assert first.weight.std().item() == pytest.approx((2 / 1.0001 / (64 * 9)) ** 0.5, rel=0.02)
    biases = [layer.bias for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert not any(bias.any() for bias in biases if bias is not None)


def test_refused_images():
    network = build("nnunet-3d", base_filters=1, shape=(16, 16, 8))
    with pytest.raises(GeometryError, match=r"multiples of 4 x 4 x 2, but got 16 x 16 x 7"):
        network(torch.zeros(1, 1, 16, 16, 7))
    with pytest.raises(GeometryError, match=r"more than 4 x 4 x 2, which it reduces to a single"):
        network(torch.zeros(1, 1, 4, 4, 2))
    with pytest.raises(GeometryError, match=r"images of 3 axes, but got 2"):
        network(torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize("case", [TestNNUNet2D, TestNNUNet3D])
def test_deep_supervision(case):
    """A head without bias on every stage of the decoder; nothing else changes."""
    plain = case.make(out_channels=3)
    network = build(case.name, out_channels=3, deep_supervision=True, **case.options).eval()
    assert not network.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    widths = [up.second.conv.out_channels for up in network.decoder]
    more = count_parameters(network).trainable - count_parameters(plain).trainable
    assert more == 3 * sum(widths[:-1])
    assert network.n_maps == len(widths) >= 2
    stages = []
    for up in network.decoder:
        up.register_forward_hook(lambda _module, _given, out: stages.append(out))
    images = case.images()
    with torch.no_grad():
        maps = network.all_maps(images)
        assert torch.equal(maps[-1], plain(images))
        assert torch.equal(maps[-1], network(images))
        for head, features, found in zip(network.lower_heads, stages, maps, strict=False):
            assert found.shape == (2, 3, *case.size)
            sizes = features.shape[2:]
            low = torch.einsum("oc,bc...->bo...", head.weight.flatten(1), features)
            factor = [n // m for n, m in zip(case.size, sizes, strict=True)]
            assert max(factor) > 1
            expected = nn.Upsample(scale_factor=tuple(map(float, factor)), mode=MODES[low.ndim])(
                low
            )
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_deep_supervision_reaches_every_head():
    network = build("nnunet-2d", deep_supervision=True, **TestNNUNet2D.options)
    sum(
        (each * torch.randn(each.shape)).sum() for each in network.all_maps(TestNNUNet2D.images())
    ).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_network_without_halvings_has_one_map():
    network = build("nnunet-2d", shape=[7, 7], base_filters=2, deep_supervision=True)
    assert network.n_maps == len(network.all_maps(torch.randn(1, 1, 7, 7))) == 1
