from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from network_tester import NetworkTester
from scipy.ndimage import correlate
from torch import nn

from leanseg.networks import build, count_parameters
from leanseg.networks.monet import RDDC


class TestMoNet(NetworkTester):
    name = "monet"
    options: ClassVar = {"base_filters": 4}
    size = (16, 24)
    published: ClassVar = {"monet": (401_666, 403_556)}


def test_three_classes():
    assert count_parameters(build("monet", out_channels=3)) == (401_702, 403_596)


def test_stages():
    """Section 1.1 of the specification: parameters of every stage as Keras counts them."""
    stages = dict(build("monet").named_children())
    assert {name: count_parameters(stage).keras_total for name, stage in stages.items()} == {
        "encoder1": 13_840,
        "encoder2": 58_624,
        "bottleneck": 167_168,
        "decoder1": 130_944,
        "decoder2": 32_960,
        "head": 20,
    }


def test_shapes_between_stages():
    """Feature maps by stage for a 256 x 256 image (table of section 1.1)."""
    network, shapes = build("monet").eval(), {}
    for name, stage in network.named_children():
        stage.register_forward_hook(
            lambda _, __, out, name=name: shapes.update(
                {name: [tuple(o.shape[1:]) for o in (out if isinstance(out, tuple) else (out,))]}
            )
        )
    with torch.no_grad():
        network(torch.zeros(1, 1, 256, 256))
    assert shapes == {
        "encoder1": [(16, 256, 256), (16, 128, 128)],
        "encoder2": [(32, 128, 128), (32, 64, 64)],
        "bottleneck": [(64, 64, 64)],
        "decoder1": [(32, 128, 128)],
        "decoder2": [(16, 256, 256)],
        "head": [(1, 256, 256)],
    }


def _block_by_hand(features, weights, name, dilation):
    """Dilated convolution, normalisation with eps 1e-3, ELU, in numpy and scipy."""
    kernel = weights[f"{name}.conv.weight"]
    spread = np.zeros((*kernel.shape[:2], 2 * dilation + 1, 2 * dilation + 1))
    spread[:, :, ::dilation, ::dilation] = kernel
    result = np.stack(
        [
            sum(correlate(f, k, mode="constant") for f, k in zip(features, filters, strict=True))
            for filters in spread
        ]
    )
    mean, variance, scale, offset = (
        weights[f"{name}.norm.{key}"][:, None, None]
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    result = (result - mean) / np.sqrt(variance + 1e-3) * scale + offset
    return np.where(result > 0, result, np.expm1(np.minimum(result, 0)))


def test_rddc_by_hand(rng):
    block = RDDC(3, dropout=0.2).double().eval()
    for value in block.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(rng.uniform(0.1, 1.0, size=tuple(value.shape)) - 0.05))
    weights = {name: value.numpy() for name, value in block.state_dict().items()}
    features = rng.normal(size=(3, 11, 9))
    first = _block_by_hand(features, weights, "dilated4", 4)
    second = _block_by_hand(features + first, weights, "dilated3", 3)
    third = _block_by_hand(second, weights, "dilated2", 2)
    expected = _block_by_hand(second + third, weights, "dilated1", 1)
    with torch.no_grad():
        result = block(torch.from_numpy(features)[None])[0].numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


def test_dropout_follows_all_but_the_last_convolution():
    block = RDDC(8, dropout=0.2).train()
    calls = []
    block.dropout.register_forward_hook(lambda *_: calls.append(1))
    block(torch.zeros(1, 8, 8, 8))
    assert len(calls) == 3
    assert block.dropout.p == build("monet").encoder1.rddc.dropout.p == 0.2


def test_strided_convolutions_pad_as_keras_same(rng):
    """Keras "same", stride 2, kernel 4, even size n: pads max(2 (n/2 - 1) + 4 - n, 0) = 2 in all.

    One each side, as the total is even. The output at i is then the sum over taps t of
    w[t] x[2 i + t - 1].
    """
    stage = build("monet", base_filters=1).encoder1.down
    assert (stage.conv.kernel_size, stage.conv.stride) == ((4, 4), (2, 2))
    image, kernel = rng.normal(size=(6, 8)), rng.normal(size=(4, 4))
    with torch.no_grad():
        stage.conv.weight.copy_(torch.from_numpy(kernel))
        result = stage.conv(torch.from_numpy(image)[None, None].float())[0, 0].numpy()
    expected = np.zeros((3, 4))
    for i, j, s, t in np.ndindex(3, 4, 4, 4):
        row, column = 2 * i + s - 1, 2 * j + t - 1
        if 0 <= row < 6 and 0 <= column < 8:
            expected[i, j] += kernel[s, t] * image[row, column]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_transposed_convolution_is_the_adjoint_of_the_strided_one(rng):
    """Keras' "same" transposed convolution is the gradient of the "same" convolution."""
    network = build("monet", base_filters=1)
    down, up = network.encoder2.down.conv, network.decoder1.up.conv
    up = nn.ConvTranspose2d(2, 2, up.kernel_size, up.stride, up.padding, bias=False)
    with torch.no_grad():
        up.weight.copy_(down.weight)
        fine, coarse = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 3, 4)
        torch.testing.assert_close((down(fine) * coarse).sum(), (fine * up(coarse)).sum())


def test_logits_leave_through_the_normalisation():
    network = build("monet", base_filters=1).eval()
    with torch.no_grad():
        network.head[1].bias.fill_(7.5)
        network.head[1].weight.zero_()
        assert (network(torch.zeros(1, 1, 8, 8)) == 7.5).all()


def test_skip_stands_before_the_upsampled_features():
    decoder = build("monet", base_filters=1).decoder2.eval()
    seen = []
    decoder.conv.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        features = torch.randn(1, 2, 4, 4)
        decoder(features, torch.full((1, 1, 8, 8), 2.0))
        torch.testing.assert_close(seen[0][:, 1:], decoder.up(features))
    assert (seen[0][:, :1] == 2.0).all()
