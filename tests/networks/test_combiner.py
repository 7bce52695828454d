from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester

from leanseg.networks import build, count_parameters


class TestCombiner(NetworkTester):
    name = "combiner"
    size = (9, 14)
    published: ClassVar = {"combiner": (2_497, 2_497)}


@pytest.mark.parametrize("instance_norm", [False, True])
@pytest.mark.parametrize(("c", "k", "w"), [(20, 3, 16), (2, 1, 4)])
def test_count_formula(c, k, w, instance_norm):
    options = {"base_filters": w, "instance_norm": instance_norm}
    network = build("combiner", in_channels=c, out_channels=k, **options)
    expected = 9 * w * (c + w) + 2 * w + w * k + k + 4 * w * instance_norm
    assert count_parameters(network).trainable == expected


def test_a_doubt_stays_small_without_normalisation():
    """A map of small values alone gives logits near those of nothing at all."""
    images = torch.zeros(2, 1, 16, 16)
    images[1, 0, 7:9, 7:9] = 0.01
    for instance_norm in (False, True):
        generator = torch.Generator().manual_seed(0)
        network = build("combiner", instance_norm=instance_norm, generator=generator).eval()
        with torch.no_grad():
            logits = network(images)
        assert ((logits[1] - logits[0]).abs().max() > 0.3) == instance_norm
