from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from leanseg.errors import GeometryError
from leanseg.networks import build
from leanseg.networks.blocks import (
    batch_norm,
    check_size,
    initialise,
)


def test_normalisation_has_the_constants_of_keras():
    layer = batch_norm(3).train()
    layer(torch.full((2, 3, 4, 4), 100.0))
    # Keras: running = 0.99 running + 0.01 batch.
    torch.testing.assert_close(layer.running_mean, torch.full((3,), 1.0))
    assert layer.eps == 1e-3


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [(nn.Conv2d(5, 64, 3), 5 * 9), (nn.ConvTranspose2d(5, 64, 4), 64 * 16)],
)
def test_he_uniform_bound(layer, fan_in):
    initialise(layer, torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / fan_in)
    assert layer.weight.abs().max() <= bound
    # Uniform: standard deviation bound / sqrt(3), and draws close to the bound.
    assert layer.weight.abs().max() > 0.98 * bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not layer.bias.any()


def test_start_draws_from_the_passed_generator_alone():
    layer = nn.Conv2d(2, 2, 3)
    before = torch.get_rng_state()
    initialise(layer, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


def test_refused_size_names_the_next_that_fits():
    with pytest.raises(GeometryError, match=r"17 x 32; pad or resize to 32 x 32"):
        check_size(torch.zeros(1, 1, 17, 32), 16, "UNet")
    check_size(torch.zeros(1, 1, 16, 32), 16, "UNet")


def test_refused_size_of_a_volume_names_every_axis():
    images = torch.zeros(1, 1, 33, 32, 6)
    expected = r"multiples of 16 x 16 x 4, but got 33 x 32 x 6; pad or resize to 48 x 32 x 8"
    with pytest.raises(GeometryError, match=expected):
        check_size(images, (16, 16, 4), "NNUNet")
    with pytest.raises(GeometryError, match=r"sizes that are multiples of 4, but got 33 x 32 x 6"):
        check_size(images, 4, "Hybrid")
    check_size(images, (11, 4, 3), "NNUNet")


def test_refused_number_of_axes():
    with pytest.raises(GeometryError, match=r"NNUNet takes images of 3 axes, but got 2"):
        check_size(torch.zeros(1, 1, 16, 16), (16, 16, 4), "NNUNet")


@pytest.mark.parametrize("name", ["monet", "unet-16", "attention-unet-16"])
@pytest.mark.parametrize("out_channels", [1, 4])
def test_foreground_prior_sets_the_share_that_a_zero_input_gets(
    name: str, out_channels: int
) -> None:
    """With the last weights at zero only the bias speaks: the probabilities are the prior."""
    network = build(name, out_channels=out_channels, foreground_prior=0.03).eval()
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    torch.nn.init.zeros_(last.weight)
    logits = network(torch.rand(1, 1, 32, 32))
    if out_channels == 1:
        assert logits.sigmoid().mean().item() == pytest.approx(0.03, abs=1e-6)
    else:
        shares = logits.softmax(1).mean((0, 2, 3))
        assert shares.tolist() == pytest.approx([0.97, 0.01, 0.01, 0.01], abs=1e-6)
