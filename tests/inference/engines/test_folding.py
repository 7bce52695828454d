"""Folding: the same function, fewer layers, and only where one layer feeds the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from leanseg.inference.engines.folding import fold_normalisation
from leanseg.networks import build


def lively(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 1, generator=generator)
            module.running_var.uniform_(0.2, 3, generator=generator)
            module.weight.data.uniform_(-2, 2, generator=generator)
            module.bias.data.normal_(0, 1, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("network", "left"),
    [
        (build("monet", base_filters=4, in_channels=2, out_channels=3), 0),
        # A ReLU lies between convolution and normalisation.
        (build("unet", base_filters=4, in_channels=2), 18),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)), 0),
        (nn.Sequential(nn.ConvTranspose2d(2, 4, 2, stride=2), nn.BatchNorm2d(4)), 0),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3)), 1),
    ],
)
def test_the_function_stays_the_same(network: nn.Module, left: int) -> None:
    network = lively(network).double()
    images = torch.rand(2, 2, 32, 32, dtype=torch.float64, generator=torch.Generator())
    folded = copy.deepcopy(network)
    fold_normalisation(folded)
    assert norms(folded) == left
    assert norms(network) > 0
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-9, atol=1e-9)
