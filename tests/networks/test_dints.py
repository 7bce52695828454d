from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from network_tester import NetworkTester

from leanseg.networks import build

nets = pytest.importorskip("monai.networks.nets")


class TestDiNTS(NetworkTester):
    name = "dints"
    options: ClassVar = {"base_filters": 2, "blocks": 2}
    size = (16, 16, 24)
    # Not published: counted below from its parts.
    published: ClassVar = {"dints": (8_354_817, 8_354_817)}
    # The starting weights are MONAI's to choose, release by release.
    test_preserved_output = None
    # MONAI goes over a buffer of numbers, which torch.compile cannot follow in one graph.
    test_compile = None
    test_compile_to_machine_code = None


def unit(given: int, made: int, kernel: int = 3) -> int:
    """A convolution without bias, and a normalisation."""
    return kernel**3 * given * made + 2 * made


def test_count_by_hand():
    """Six layers of seven cells: three stay at their resolution, two halve and two double."""
    stem, finest = (16, 32, 64), (32, 64, 128)
    ends = sum(unit(1, n) + unit(n, m) + unit(m, n) for n, m in zip(stem, finest, strict=True)) + (
        unit(16, 16) + 16 + 1
    )
    cells = sum(unit(n, n) for n in finest)
    for fine, coarse in pairwise(finest):
        cells += unit(coarse, fine, 1) + unit(fine, fine)
        cells += unit(fine, coarse, 1) + unit(coarse, coarse)
    assert TestDiNTS.published["dints"][0] == ends + 6 * cells


def test_prints_nothing(capsys):
    build("dints", base_filters=2, blocks=1)
    assert capsys.readouterr().out == ""


def test_is_the_network_of_monai():
    """With its codes as tensors, as MONAI has them."""
    network = build("dints", base_filters=4, blocks=2, out_channels=3).eval()
    codes = [np.ones((2, 7)), np.ones((2, 7))]
    space = nets.TopologyInstance(codes, 0.125, num_blocks=2, num_depths=3)
    other = nets.DiNTS(space, 1, 3).eval()
    other.load_state_dict(network.network.state_dict())
    images = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(images), other(images))
    assert network.size_divisor == 8
