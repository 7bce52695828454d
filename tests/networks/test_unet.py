from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from network_tester import NetworkTester
from scipy.special import expit
from torch import nn

from leanseg.networks import build, count_parameters
from leanseg.networks.unet import AttentionGate, ConvReLUNorm


class TestUNet(NetworkTester):
    name = "unet"
    options: ClassVar = {"base_filters": 4}
    size = (32, 48)
    published: ClassVar = {
        "unet": (31_042_369, 31_054_145),
        "unet-64": (31_042_369, 31_054_145),
        "unet-16": (1_943_761, 1_946_705),
    }


class TestAttentionUNet(NetworkTester):
    name = "attention-unet"
    options: ClassVar = {"base_filters": 4}
    size = (32, 48)
    published: ClassVar = {
        "attention-unet": (31_741_573, 31_753_349),
        "attention-unet-64": (31_741_573, 31_753_349),
        "attention-unet-16": (1_988_005, 1_990_949),
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


@pytest.mark.parametrize("channels", [1, 7, 64])
def test_gate_count(channels):
    counts = count_parameters(AttentionGate(channels))
    assert counts == (2 * channels**2 + 3 * channels + 1,) * 2


def test_gates_are_the_whole_difference_from_the_unet():
    with torch.device("meta"):
        gated, plain = build("attention-unet-64"), build("unet-64")
    difference = count_parameters(gated).trainable - count_parameters(plain).trainable
    assert difference == 699_204


def test_gate_by_hand(rng):
    skip, up = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    gate = AttentionGate(3).double()
    with torch.no_grad():
        result = gate(torch.from_numpy(skip), torch.from_numpy(up)).numpy()
    weights = {name: value.detach().numpy() for name, value in gate.named_parameters()}

    def pixelwise(features, name):
        mixed = np.einsum("oc,bcij->boij", weights[f"{name}.weight"][:, :, 0, 0], features)
        return mixed + weights[f"{name}.bias"][:, None, None]

    joint = np.maximum(pixelwise(skip, "skip") + pixelwise(up, "up"), 0)
    np.testing.assert_allclose(result, skip * expit(pixelwise(joint, "weight")), rtol=1e-10)
