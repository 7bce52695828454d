from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester

from leanseg.networks import build, count_parameters

nets = pytest.importorskip("monai.networks.nets")


class TestResidualUNet(NetworkTester):
    name = "residual-unet"
    options: ClassVar = {"base_filters": 2, "dropout": 0.2}
    size = (32, 48)
    # Not published: counted with MONAI 1.6.
    published: ClassVar = {"residual-unet": (25_969_628, 25_969_628)}
    # Instance normalisation takes the biases out that stand before it; behind the last
    # convolution stands none.
    without_gradient = r"(?!network\.model\.2\.1\.).*\.conv\.bias"
    # The starting weights are MONAI's to choose, release by release.
    test_preserved_output = None


def test_is_the_network_of_monai():
    network = build("residual-unet", base_filters=2, out_channels=3).eval()
    other = nets.UNet(2, 1, 3, [2, 4, 8, 16, 32], [2, 2, 2, 2], num_res_units=2).eval()
    other.load_state_dict(network.network.state_dict())
    images = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), other(images))
    assert network.size_divisor == 16


def test_three_axes():
    network = build("residual-unet", base_filters=1, spatial_dims=3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 16, 32)).shape == (1, 1, 32, 16, 32)


def test_sixteen_filters():
    assert count_parameters(build("residual-unet", base_filters=16)).trainable == 1_624_844
