from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester
from torch import nn
from torch.nn import functional

from leanseg.networks import build
from leanseg.networks.multiscale_unet import ConvNormReLU, MultiscaleBackbone


class TestMultiscaleUNet(NetworkTester):
    name = "multiscale-unet"
    options: ClassVar = {"base_filters": 2}
    size = (32, 48)
    without_gradient = r".*\.conv\.bias"
    published: ClassVar = {
        # The specification's; running statistics counted from the blocks (2 per channel).
        "multiscale-unet": (102_878_913, 102_878_913 + 2 * 13_824),
        "multiscale-unet-half": (25_730_913, 25_730_913 + 2 * 6_912),
        "multiscale-unet-quarter": (6_438_321, 6_438_321 + 2 * 3_456),
    }


def test_normalised_channels():
    """What the running statistics above are counted from, for f = 64.

    Encoders: 2 + 4 convolutions of f, 2f, 4f, 8f; centre: 6 of 16f; decoder: 2 each.
    """
    assert 64 * (6 * 15 + 6 * 16 + 2 * 15) == 13_824


def test_features_by_level():
    backbone = MultiscaleBackbone(1, 2).eval()
    with torch.no_grad():
        levels = backbone(torch.zeros(1, 1, 32, 48))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (96, 2, 3),
        (16, 4, 6),
        (8, 8, 12),
        (4, 16, 24),
        (2, 32, 48),
    ]
    assert tuple(level.shape[1] for level in levels) == backbone.out_channels


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (7, 1), (3, 8)])
def test_block_is_convolution_then_normalisation_then_relu(kernel, dilation):
    block = ConvNormReLU(2, 3, kernel, dilation).eval()
    nn.init.uniform_(block.norm.running_mean)
    nn.init.uniform_(block.norm.running_var, 0.5, 1.5)
    nn.init.uniform_(block.norm.bias, -1, 0)
    images = torch.randn(2, 2, 20, 24)
    weight = torch.zeros(3, 2, *(2 * [dilation * (kernel - 1) + 1]))
    with torch.no_grad():
        weight[:, :, ::dilation, ::dilation] = block.conv.weight
        plain = functional.conv2d(images, weight, block.conv.bias, padding="same")
        scale = (block.norm.running_var + 1e-5).rsqrt()[:, None, None]
        mean, bias = block.norm.running_mean[:, None, None], block.norm.bias[:, None, None]
        expected = ((plain - mean) * scale + bias).clamp_min(0)
        torch.testing.assert_close(block(images), expected)


def _tap(module, seen, name):
    module.register_forward_hook(lambda _, given, out: seen.update({name: (given, out)}))


def test_paths_of_the_centre_and_order_of_the_skips():
    """3x3 on the first encoder, 1x1 and 5x5 on the second; skips are from before the pooling."""
    backbone, seen = MultiscaleBackbone(1, 2).eval(), {}
    for name in ("plain.3", "scales.3", "centre_plain", "centre_scales", "decoder.0.first"):
        _tap(backbone.get_submodule(name), seen, name)
    _tap(backbone.decoder[0].second, seen, "second")
    _tap(backbone.decoder[0].up, seen, "up")
    with torch.no_grad():
        levels = backbone(torch.randn(1, 1, 32, 32))
    plain, scales = seen["plain.3"][1], seen["scales.3"][1]
    assert plain.shape[1:] == (16, 4, 4)
    assert scales.shape[1:] == (32, 4, 4)
    assert torch.equal(seen["centre_plain"][0][0], functional.max_pool2d(plain, 2))
    assert torch.equal(seen["centre_scales"][0][0], functional.max_pool2d(scales, 2))
    assert torch.equal(levels[0][:, :32], seen["centre_plain"][1])
    assert [backbone.centre_plain[0].conv.kernel_size[0]] == [3]
    assert backbone.centre_scales.small[0].conv.kernel_size == (1, 1)
    assert backbone.centre_scales.large[0].conv.kernel_size == (5, 5)
    first, second = seen["decoder.0.first"], seen["second"]
    assert torch.equal(first[0][0], torch.cat((seen["up"][1], plain), dim=1))
    assert torch.equal(second[0][0], torch.cat((first[1], scales), dim=1))


def test_both_encoders_start_from_the_image():
    backbone = MultiscaleBackbone(3, 2)
    starts = backbone.plain[0][0], backbone.scales[0].small[0], backbone.scales[0].large[0]
    assert [start.conv.in_channels for start in starts] == [3, 3, 3]


def test_foreground_prior():
    network = build("multiscale-unet", base_filters=1, foreground_prior=0.1)
    nn.init.zeros_(network.head.weight)
    assert network.eval()(torch.zeros(1, 1, 16, 16)).sigmoid().mean().item() == pytest.approx(0.1)
