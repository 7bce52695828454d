from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from network_tester import NetworkTester
from torch import nn
from torch.export import Dim

from leanseg.errors import GeometryError
from leanseg.networks import build, count_parameters

# Batch normalisation takes the bias of the convolution ahead of it out again.
CANCELLED = r".*\.conv\.bias"


class TestAllConvUNet(NetworkTester):
    name = "allconv-unet"
    size = (18, 24, 20)
    without_gradient = CANCELLED
    fewest_blocks = 17


class TestGlobalFCUNet(NetworkTester):
    name = "global-fc-unet"
    options: ClassVar = {"size": [32, 24, 36], "hidden": 12}
    size = (32, 24, 36)
    without_gradient = CANCELLED

    @classmethod
    def images(cls, batch: int = 2, channels: int = 1, scale: int = 1) -> torch.Tensor:
        return super().images(batch, channels)

    @classmethod
    def dynamic_shapes(cls, network: nn.Module) -> dict[int, Any]:
        return {0: Dim("batch", min=1, max=1024)}

    def test_odd_sizes(self):
        with pytest.raises(GeometryError, match=r"images of 32 x 24 x 36, but got 32 x 24 x 37"):
            self.make()(torch.zeros(1, 1, 32, 24, 37))


@pytest.mark.parametrize(
    ("name", "options", "eight", "nine"),
    [
        ("allconv-unet", {}, 875_798, 878_154),
        ("allconv-unet-tcia", {}, 882_764, 883_740),
        ("lean-unet", {}, 199_286, 201_642),
        ("lean-unet-220k", {}, None, 218_922),
        ("global-fc-unet", {}, 11_944_002, 11_944_816),
        ("global-fc-unet", {"size": [156, 115, 160]}, 13_081_422, 13_082_236),
        ("global-fc-unet", {"size": [160, 160, 160]}, None, 16_286_236),
    ],
)
def test_counts_of_the_specification(name, options, eight, nine):
    for classes, count in ((8, eight), (9, nine)):
        with torch.device("meta"):
            network = build(name, out_channels=classes, **options)
        assert count is None or count_parameters(network).trainable == count


def test_fully_connected_layers_are_most_of_the_global_network():
    with torch.device("meta"):
        network = build("global-fc-unet", out_channels=9)
    linear = sum(count_parameters(each).trainable for each in (network.down, network.up))
    assert linear == 11_678_980


def test_layers_of_table_1():
    """Inputs, outputs and stride of all convolutions, in their order."""
    with torch.device("meta"):
        network = build("allconv-unet", out_channels=9)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d)]
    assert [(c.in_channels, c.out_channels, c.stride[0]) for c in convolutions] == [
        (1, 5, 1),
        (5, 16, 2),
        (16, 16, 1),
        (16, 32, 2),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
        (64, 80, 2),
        (80, 80, 1),
        (144, 64, 1),
        (96, 32, 1),
        (48, 9, 1),
        (14, 9, 1),
        (9, 9, 1),
    ]


@pytest.mark.parametrize("name", ["lean-unet", "lean-unet-220k", "allconv-unet-tcia"])
def test_named_variants_learn(name):
    network = build(name, out_channels=3, generator=torch.Generator().manual_seed(0)).train()
    logits = network(torch.randn(2, 1, 33, 34, 40))
    assert logits.shape == (2, 3, 33, 34, 40)
    (logits * torch.randn(logits.shape)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "eighth"), [("lean-unet", 8), ("lean-unet-220k", 4)])
def test_lean_groups(name, eighth):
    with torch.device("meta"):
        network = build(name, out_channels=9)
    groups = [layer.groups for layer in network.modules() if isinstance(layer, nn.Conv3d)]
    assert groups == [1, 1, 1, 1, 1, 4, 4, eighth, 8, 8, 4, 1, 1, 1]


def test_dropout_of_the_public_code_is_off_at_prediction():
    network = build("allconv-unet-tcia")
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Dropout3d)]
    assert len(layers) == 16
    assert all(
        layer.p == 0.5 and not layer.training
        for layer in network.eval().modules()
        if isinstance(layer, nn.Dropout3d)
    )
