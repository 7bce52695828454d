from __future__ import annotations

import numpy as np
import pytest
import torch
from network_tester import NetworkTester
from torch import nn

from leanseg.networks import build, count_parameters
from leanseg.networks.dense_vnet import ConvNormReLU3d, _half_size


class TestDenseVNet(NetworkTester):
    name = "dense-vnet"
    size = (16, 24, 16)
    fewest_blocks = 2

    @pytest.mark.slow
    def test_onnx(self, tmp_path):
        super().test_onnx(tmp_path)

    @pytest.mark.slow
    def test_compile(self):
        super().test_compile()


@pytest.mark.parametrize(("n_classes", "count"), [(9, 878_514), (2, 866_978)])
def test_counts(n_classes, count):
    with torch.device("meta"):
        assert count_parameters(build("dense-vnet", out_channels=n_classes)).trainable == count


@pytest.mark.parametrize(("kernel", "before", "behind"), [(5, 1, 2), (3, 0, 1)])
def test_strided_convolutions_pad_as_tensorflow_same(kernel, before, behind, rng):
    """ "same" with stride 2 on even sizes n: max(2 (n/2 - 1) + k - n, 0) = k - 2, less in front."""
    block = ConvNormReLU3d(1, 1, kernel, stride=2)
    assert before + behind == kernel - 2
    image, weights = rng.normal(size=(8, 6, 6)), rng.normal(size=(kernel,) * 3)
    with torch.no_grad():
        block.conv.weight.copy_(torch.from_numpy(weights))
        padded = block.pad(torch.from_numpy(image).float()[None, None])
        result = block.conv(padded)[0, 0].numpy()
    expected = np.zeros((4, 3, 3))
    around = np.pad(image, [(before, behind)] * 3)
    for place in np.ndindex(4, 3, 3):
        corner = tuple(slice(2 * each, 2 * each + kernel) for each in place)
        expected[place] = (around[corner] * weights).sum()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_half_size_is_a_mean_of_what_lies_inside(rng):
    image = rng.normal(size=(6, 4, 4))
    result = _half_size(torch.from_numpy(image)[None, None])[0, 0].numpy()
    assert result.shape == (3, 2, 2)
    for place in np.ndindex(3, 2, 2):
        corner = tuple(slice(2 * each, 2 * each + 3) for each in place)
        np.testing.assert_allclose(result[place], image[corner].mean(), rtol=1e-12)


def test_channels_between_stacks():
    network, seen = build("dense-vnet").eval(), []
    for stack in network.stacks:
        stack.register_forward_hook(
            lambda _, given, out: seen.append([tuple(each.shape[1:]) for each in (*given, *out)])
        )
    network.head.register_forward_hook(lambda _, given, out: seen.append(given[0].shape[1]))
    with torch.no_grad():
        network(torch.zeros(1, 1, 32, 16, 16))
    assert seen == [
        [(25, 16, 8, 8), (12, 16, 8, 8), (24, 8, 4, 4)],
        [(24, 8, 4, 4), (24, 8, 4, 4), (24, 4, 2, 2)],
        [(24, 4, 2, 2), (24, 4, 2, 2), (184, 4, 2, 2)],
        61,
    ]


def test_no_dropout_behind_the_last_layer_of_a_stack():
    network = build("dense-vnet", dropout=0.3)
    for stack in network.stacks:
        rates = [layer.dropout.p for layer in stack.layers]
        assert rates == [0.3] * (len(rates) - 1) + [0.0]
        assert stack.skip.dropout.p == 0.3
    assert isinstance(network.stacks[-1].down, nn.Identity)
