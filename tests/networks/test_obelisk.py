from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester
from torch import nn
from torch.nn import functional

from leanseg.networks import build, count_parameters
from leanseg.networks.obelisk_layer import halved, smoothed


class TestObelisk(NetworkTester):
    name = "obelisk"
    options: ClassVar = {"n_offsets": 16}
    size = (12, 16, 10)
    fewest_blocks = 5
    # The specification counts 8 and 9 classes, see below.
    published: ClassVar = {
        "obelisk": (129_665, 132_097),
        "obelisk-unary": (126_593, 129_025),
        "obelisk-random": (123_521, 125_953),
    }

    @classmethod
    def prepare(cls, network: nn.Module, generator: torch.Generator) -> None:
        """Noise that is smoothed leaves little: without this all logits are near the bias."""
        nn.init.normal_(network.classifier.weight, generator=generator)


@pytest.mark.parametrize(
    ("name", "eight", "nine"),
    [
        ("obelisk", 131_464, 131_721),
        ("obelisk-unary", 128_392, 128_649),
        ("obelisk-random", 125_320, 125_577),
    ],
)
def test_counts_of_the_specification(name, eight, nine):
    with torch.device("meta"):
        counts = [count_parameters(build(name, out_channels=n)).trainable for n in (8, 9)]
    assert counts == [eight, nine]


def test_parts_of_the_count():
    """Section 3.1: offsets and two linear layers, the rest but for the first two norms, those."""
    with torch.device("meta"):
        network = build("obelisk", out_channels=8)
    count = {name: count_parameters(part).trainable for name, part in network.named_children()}
    assert count["layer"] + count["linear"] == 104_448
    assert count["dense"] + count["norm3"] + count["classifier"] == 26_248
    assert count["norm1"] + count["norm2"] == 768


def test_starts_as_the_paper_says():
    network = build("obelisk", generator=torch.Generator().manual_seed(0))
    offsets = network.layer.offsets
    assert offsets.shape == (1024, 2, 3)
    assert offsets.std().item() == pytest.approx(0.05, rel=0.03)
    assert abs(offsets.mean().item()) < 0.002
    # Xavier: variance 2 / (fan in + fan out), per group of 256 maps to 64 of 256 outputs.
    assert network.layer.weight.shape == (256, 256)
    assert network.layer.weight.var().item() == pytest.approx(2 / 512, rel=0.03)


def test_pairs_are_blind_to_brightness_but_at_the_border():
    network = build("obelisk", n_offsets=4, smoothing=[]).eval()
    with torch.no_grad():
        network.layer.offsets.mul_(0.2)
        size = (5, 5, 5)
        features = [network.layer(torch.full((1, 1, 9, 9, 9), value), size) for value in (1.0, 3.0)]
        assert features[0][..., 2, 2, 2].abs().max() < 1e-5
        assert features[1][..., 2, 2, 2].abs().max() < 1e-5
        assert features[1].abs().max() > 1e-3  # offsets that leave the image


def test_points_of_the_grid_give_what_the_grid_gives():
    network = TestObelisk.make(out_channels=3)
    images = TestObelisk.images()
    axes = [torch.linspace(-1, 1, length) for length in (3, 4, 2)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1).reshape(1, -1, 3)
    with torch.no_grad():
        found = network.at(images, points.expand(2, -1, 3))
        torch.testing.assert_close(found, network.on(images, (3, 4, 2)).flatten(2))


def test_whole_network_is_its_grid_at_a_quarter_brought_up_in_two_steps():
    network = TestObelisk.make(out_channels=2)
    images = torch.randn(1, 1, 13, 18, 11)
    with torch.no_grad():
        logits = network.on(images, (4, 5, 3))
        for size in ((7, 9, 6), (13, 18, 11)):
            logits = functional.interpolate(logits, size, mode="trilinear")
        torch.testing.assert_close(network(images), logits)


@pytest.mark.parametrize("name", ["obelisk", "obelisk-unary", "obelisk-random"])
def test_sparse_training_reaches_every_parameter(name):
    network = build(name, n_offsets=16, out_channels=3).train()
    points, turn = torch.rand(2, 20, 3) * 2 - 1, torch.eye(3) + 0.2 * torch.randn(2, 3, 3)
    logits = network.at(TestObelisk.images(), points, turn)
    assert logits.shape == (2, 3, 20)
    (logits * torch.randn(logits.shape)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


def test_gradient_of_sparse_training_is_that_of_finite_differences():
    network = TestObelisk.make(out_channels=2).double().train()
    images, points = TestObelisk.images().double(), torch.rand(2, 9, 3).double() * 1.6 - 0.8
    turn = torch.eye(3) + 0.2 * torch.randn(2, 3, 3).double()
    offsets = network.layer.offsets
    weights, direction = torch.randn(2, 2, 9).double(), torch.randn_like(offsets)

    def value() -> torch.Tensor:
        return (network.at(images, points, turn) * weights).sum()

    value().backward()
    step, values = 1e-7, []
    with torch.no_grad():
        for sign in (1, -2):
            offsets.add_(sign * step * direction)
            values.append(value())
    expected = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close((offsets.grad * direction).sum(), expected, rtol=1e-4, atol=1e-6)


def test_images_are_smoothed_once_for_many_steps():
    network = TestObelisk.make(out_channels=3)
    images, points = TestObelisk.images(), torch.rand(2, 7, 3) * 2 - 1
    with torch.no_grad():
        expected = network.at(images, points)
        assert torch.equal(network.at(network.smoothed(images), points, smooth=False), expected)
        assert not torch.allclose(network.at(images, points, smooth=False), expected)


def test_turn_multiplies_the_offsets():
    network = TestObelisk.make(out_channels=3)
    images, points = TestObelisk.images(), torch.rand(2, 7, 3) * 2 - 1
    turn = torch.eye(3) + 0.2 * torch.randn(2, 3, 3)
    with torch.no_grad():
        found = network.at(images, points, turn)
        offsets = network.layer.offsets.clone()
        for b in range(2):
            network.layer.offsets.copy_(offsets @ turn[b])
            expected = network.at(images[b : b + 1], points[b : b + 1])
            torch.testing.assert_close(found[b : b + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "per_place", "trained"),
    [
        ("obelisk-unary", {}, 1, True),
        ("obelisk-random", {}, 2, False),
        ("obelisk-unary", {"trainable_offsets": False}, 1, False),
    ],
)
def test_variants_of_the_offsets(name, options, per_place, trained):
    generator = torch.Generator().manual_seed(0)
    network = build(name, n_offsets=8, smoothing=[], generator=generator, **options)
    assert network.layer.offsets.shape == (8, per_place, 3)
    assert isinstance(network.layer.offsets, nn.Parameter) == trained
    images = torch.randn(2, 1, 8, 9, 10)
    before = network.layer.offsets.clone()
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    network(images).square().mean().backward()
    optimiser.step()
    assert torch.equal(before, network.layer.offsets) != trained
    assert "layer.offsets" in network.state_dict()


@pytest.mark.parametrize("sd", [0.02, 0.1])
@pytest.mark.parametrize("name", ["obelisk-random", "obelisk-hybrid-tcia"])
def test_spread_of_the_offsets_at_the_start(name, sd):
    network = build(name, offset_sd=sd, generator=torch.Generator().manual_seed(0))
    layer = network.layer if name == "obelisk-random" else network.coarse.layer
    assert layer.offsets.std().item() == pytest.approx(sd, rel=0.05)
    # Nothing else depends on it.
    usual = build(name, generator=torch.Generator().manual_seed(0)).state_dict()
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, usual[key]) != key.endswith("offsets"), key


def test_smoothing_is_the_mean_of_cubes_with_zeros_around():
    images = torch.randn(1, 2, 6, 7, 8)
    expected = images
    for length in (5, 3):
        expected = functional.avg_pool3d(expected, length, stride=1, padding=length // 2)
    torch.testing.assert_close(smoothed(images, 5, 3), expected)
    assert smoothed(images) is images


def test_lengths_are_halved_up():
    assert halved((156, 115, 160)) == [78, 58, 80]
    assert halved((156, 115, 160), 3) == [20, 15, 20]
