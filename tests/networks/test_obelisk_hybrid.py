from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester

from leanseg.networks import build, count_parameters, obelisk_sampling

# Batch normalisation takes the bias of the convolution ahead of it out again.
CANCELLED = r".*\.conv\.bias"


class TestHybridTCIA(NetworkTester):
    name = "obelisk-hybrid-tcia"
    size = (12, 16, 10)
    without_gradient = CANCELLED
    fewest_blocks = 9
    published: ClassVar = {"obelisk-hybrid-tcia": (225_649, 228_819)}


class TestHybridVISCERAL(NetworkTester):
    name = "obelisk-hybrid-visceral"
    size = (12, 16, 10)
    without_gradient = CANCELLED
    fewest_blocks = 9
    published: ClassVar = {"obelisk-hybrid-visceral": (229_977, 233_057)}


@pytest.mark.parametrize(
    ("name", "eight", "nine"),
    [
        ("obelisk-hybrid-tcia", 228_764, 229_217),
        ("obelisk-hybrid-visceral", 230_208, 230_241),
    ],
)
def test_counts_of_the_specification(name, eight, nine):
    with torch.device("meta"):
        counts = [count_parameters(build(name, out_channels=n)).trainable for n in (8, 9)]
    assert counts == [eight, nine]


@pytest.mark.parametrize(
    ("name", "classes", "fine", "coarse", "rest"),
    [
        ("obelisk-hybrid-tcia", 9, 28_928, 41_856, 158_433),
        ("obelisk-hybrid-visceral", 8, 40_704, 41_856, 147_648),
    ],
)
def test_parts_of_the_count(name, classes, fine, coarse, rest):
    with torch.device("meta"):
        network = build(name, out_channels=classes)
    counts = [count_parameters(part).trainable for part in (network.fine, network.coarse)]
    assert counts == [fine, coarse]
    assert count_parameters(network).trainable - sum(counts) == rest


@pytest.mark.parametrize("name", ["obelisk-hybrid-tcia", "obelisk-hybrid-visceral"])
def test_sampling_grids(name):
    seen = {}

    def sizes(**options):
        network = build(name, **options).eval()
        for part in (network.fine, network.coarse):
            part.layer.register_forward_hook(
                lambda layer, _, out: seen.update({layer: tuple(out.shape[2:])})
            )
        with torch.no_grad():
            assert network(torch.zeros(1, 1, 17, 24, 16)).shape == (1, 1, 17, 24, 16)
        return [seen[network.fine.layer], seen[network.coarse.layer]]

    assert sizes() == [(5, 6, 4), (3, 3, 2)]
    assert sizes(coarse_grid=[3, 6, 3]) == [(5, 6, 4), (3, 6, 3)]
    assert sizes(fine_grid=(8, 7, 6)) == [(8, 7, 6), (3, 3, 2)]


def test_fine_offsets_read_the_image_or_the_first_features():
    """The two layouts differ in this (specification, section 8.8)."""
    with torch.device("meta"):
        assert build("obelisk-hybrid-tcia").fine.layer.weight.shape == (128, 128 // 2)
        assert build("obelisk-hybrid-visceral").fine.layer.weight.shape == (128, 4 * 128 // 4)


@pytest.mark.parametrize("name", ["obelisk-hybrid-tcia", "obelisk-hybrid-visceral"])
def test_training_is_the_same_with_grid_sample(name, monkeypatch):
    """Loss and gradients of the whole network, compiled loops against `grid_sample`."""
    images = torch.randn(2, 1, 16, 18, 20, generator=torch.Generator().manual_seed(3))
    tester = {each.name: each for each in (TestHybridTCIA, TestHybridVISCERAL)}[name]
    gradients = []
    for compiled in (True, False):
        network = tester.make(out_channels=4).train()
        monkeypatch.setattr(obelisk_sampling, "_compiled_loops", lambda _, use=compiled: use)
        network(images).log_softmax(1)[:, 1].mean().backward()
        gradients.append(dict(network.named_parameters()))
    for key, parameter in gradients[0].items():
        expected = gradients[1][key].grad
        error = (parameter.grad - expected).abs().max()
        assert error <= 1e-3 * expected.abs().max() + 1e-7, key


def test_bfloat16_autocast_stays_close():
    network = TestHybridVISCERAL.make(out_channels=3)
    images = TestHybridVISCERAL.images()
    with torch.no_grad():
        expected = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(images).float()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
