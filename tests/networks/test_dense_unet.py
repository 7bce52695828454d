from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester

from leanseg.networks import build, count_parameters


class TestDenseUNet(NetworkTester):
    name = "dense-unet"
    options: ClassVar = {"layers_per_block": [2, 1, 2, 3], "growth_rate": 3, "base_filters": 4}
    size = (32, 48)
    published: ClassVar = {
        "dense-unet": (1_374_001, 1_395_169),
        "dense-unet-56": (1_374_001, 1_395_169),
        "dense-unet-67": (3_459_489, 3_499_169),
        "dense-unet-103": (9_318_657, 9_421_729),
    }

    @pytest.mark.slow
    def test_onnx(self, tmp_path):
        super().test_onnx(tmp_path)


@pytest.mark.parametrize(
    ("n_layers", "millions", "within"), [(56, 1.5, 0.11), (67, 3.5, 0.05), (103, 9.4, 0.05)]
)
def test_counts_that_their_paper_publishes(n_layers, millions, within):
    """For three channels and eleven classes; the 56 layers' figure is rounded up generously."""
    with torch.device("meta"):
        network = build(f"dense-unet-{n_layers}", in_channels=3, out_channels=11)
    assert count_parameters(network).keras_total / 1e6 == pytest.approx(millions, abs=within)


@pytest.mark.parametrize("n_layers", [56, 67, 103])
def test_number_of_convolutions(n_layers):
    """The name counts them all, transposed ones included."""
    with torch.device("meta"):
        network = build(f"dense-unet-{n_layers}")
    assert sum(parameter.ndim == 4 for parameter in network.parameters()) == n_layers


def test_features_that_the_public_code_states():
    """The number of features m of each block of the 103 layers, as its README corrects it."""
    network, seen = build("dense-unet-103", dropout=0.0).eval(), []
    blocks = (*network.down, network.bottleneck, *network.up)
    for block in blocks:
        block.register_forward_hook(lambda _, given, out: seen.append(out[0].shape[1]))
    with torch.no_grad():
        network(torch.zeros(1, 1, 32, 32))
    assert seen == [112, 192, 304, 464, 656, 896, 1088, 816, 578 - 2, 384, 256]


def test_only_new_features_are_upsampled():
    network, seen = build("dense-unet", **TestDenseUNet.options).eval(), []
    network.ups[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.bottleneck.register_forward_hook(lambda _, given, out: seen.append(out[0]))
    with torch.no_grad():
        network(torch.randn(1, 1, 16, 16))
    assert seen[1].shape[1] == 3 * 3
    assert torch.equal(seen[0][:, -9:], seen[1])
