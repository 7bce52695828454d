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


def test_sparse_training_reaches_every_parameter():
    network = TestObelisk.make(out_channels=3).train()
    points = torch.rand(2, 20, 3) * 2 - 1
    network.at(TestObelisk.images(), points).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


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


@pytest.mark.parametrize("name", ["obelisk-unary", "obelisk-random"])
def test_single_offsets(name):
    network = build(name, n_offsets=8, smoothing=[], generator=torch.Generator().manual_seed(0))
    assert network.layer.offsets.shape == (8, 1, 3)
    assert isinstance(network.layer.offsets, nn.Parameter) == (name == "obelisk-unary")
    images = torch.randn(2, 1, 8, 9, 10)
    before = network.layer.offsets.clone()
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    network(images).square().mean().backward()
    optimiser.step()
    assert torch.equal(before, network.layer.offsets) == (name == "obelisk-random")
    assert "layer.offsets" in network.state_dict()


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
