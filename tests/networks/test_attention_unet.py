from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from network_tester import NetworkTester
from scipy.special import expit

from leanseg.networks import build, count_parameters
from leanseg.networks.attention_unet import AttentionGate


class TestAttentionUNet(NetworkTester):
    name = "attention-unet"
    options: ClassVar = {"base_filters": 4}
    size = (32, 48)
    published: ClassVar = {
        "attention-unet": (31_741_573, 31_753_349),
        "attention-unet-64": (31_741_573, 31_753_349),
        "attention-unet-16": (1_988_005, 1_990_949),
    }


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
