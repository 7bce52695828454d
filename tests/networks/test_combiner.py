from __future__ import annotations

from typing import ClassVar

import pytest
from network_tester import NetworkTester

from leanseg.networks import build, count_parameters


class TestCombiner(NetworkTester):
    name = "combiner"
    size = (9, 14)
    published: ClassVar = {"combiner": (2_561, 2_561)}
    # Instance normalisation takes the biases out that stand before it.
    without_gradient = r"body\.[03]\.bias"


@pytest.mark.parametrize(("c", "k", "w"), [(20, 3, 16), (2, 1, 4)])
def test_count_formula(c, k, w):
    network = build("combiner", in_channels=c, out_channels=k, base_filters=w)
    assert count_parameters(network).trainable == 9 * w * (c + w) + 6 * w + w * k + k
