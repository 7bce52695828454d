from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from network_tester import NetworkTester
from torch import nn

from leanseg.networks import build
from leanseg.networks.unet import ConvReLUNorm


class TestUNet(NetworkTester):
    name = "unet"
    options: ClassVar = {"base_filters": 4}
    size = (32, 48)
    published: ClassVar = {
        "unet": (31_042_369, 31_054_145),
        "unet-64": (31_042_369, 31_054_145),
        "unet-16": (1_943_761, 1_946_705),
    }


def test_normalisation_comes_after_the_activation():
    block = ConvReLUNorm(1, 1).eval()
    with torch.no_grad():
        nn.init.zeros_(block.conv.weight)
        block.conv.bias.fill_(-5.0)
        block.norm.running_mean.fill_(0.5)
        block.norm.running_var.fill_(2.0)
        # relu(-5) = 0, then (0 - 0.5) / sqrt(2 + 0.001): the other order would give 0.
        value = block(torch.zeros(1, 1, 3, 3))[0, 0, 1, 1].item()
    np.testing.assert_allclose(value, -0.5 / np.sqrt(2.001), rtol=1e-6)


def test_dropout_is_in_encoder_and_bottleneck_only():
    network = build("unet", base_filters=1, dropout=0.4)
    places = [name for name, layer in network.named_modules() if isinstance(layer, nn.Dropout2d)]
    assert places == [*(f"encoder.{level}.dropout" for level in range(4)), "bottleneck.dropout"]
    assert network.encoder[0].dropout.p == 0.4
    assert build("unet").encoder[0].dropout.p == 0.3


def test_upsampled_features_stand_before_the_skip():
    block = build("unet", base_filters=1).decoder[-1].eval()
    skip, features = torch.full((1, 1, 4, 4), 2.0), torch.ones(1, 2, 2, 2)
    seen = []
    block.convs.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        block(features, skip)
        torch.testing.assert_close(seen[0][:, :1], block.up(features))
    assert (seen[0][:, 1:] == 2.0).all()
