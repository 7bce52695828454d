"""Blocks and checks that several networks share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from leanseg.errors import GeometryError

# Keras' defaults (epsilon 1e-3, momentum 0.99), which the public code of paper 000 uses for all
# its networks; torch counts momentum from the other end.
KERAS_EPS: Final = 1e-3
KERAS_MOMENTUM: Final = 0.01


# By the number of spatial axes.
Layers = dict[int, Callable[..., Any]]
CONVOLUTIONS: Final[Layers] = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS: Final[Layers] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with Keras' constants (eps 1e-3, torch momentum 0.01)."""
    return nn.BatchNorm2d(channels, eps=KERAS_EPS, momentum=KERAS_MOMENTUM)


class ConvNormELU(nn.Sequential):
    """Convolution without bias, batch normalisation, ELU (paper 000, Fig 3).

    The 3x3 convolution pads by its dilation and keeps the size. The 4x4 convolution of stride 2
    pads by 1, and its transpose likewise: on even sizes this is what Keras' "same" does.

    Args:
        convolution: The layer, whose output has `convolution.out_channels` channels.
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = convolution
        self.norm = batch_norm(convolution.out_channels)
        # In place: normalisation keeps its input, not its output, and ELU its output.
        self.elu = nn.ELU(inplace=True)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Where what is inside stays in float32; the meta device, of shapes alone, has no autocast."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def conv_norm_elu(in_channels: int, out_channels: int, *, dilation: int = 1) -> ConvNormELU:
    """3x3, size kept."""
    return ConvNormELU(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
    )


def halve_norm_elu(channels: int) -> ConvNormELU:
    """4x4 with stride 2: half the rows and columns."""
    return ConvNormELU(nn.Conv2d(channels, channels, 4, stride=2, padding=1, bias=False))


def double_norm_elu(channels: int) -> ConvNormELU:
    """Transposed 4x4 with stride 2: twice the rows and columns."""
    return ConvNormELU(nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False))


# Bound sqrt(6 / fan_in); for transposed convolutions fan_in is out_channels x kernel area, in
# Keras as in torch.
he_uniform = partial(nn.init.kaiming_uniform_, nonlinearity="relu")


def initialise(
    module: nn.Module,
    generator: torch.Generator | None,
    start: Callable[..., Any] = he_uniform,
) -> None:
    """Start the convolutions' weights, with zero biases, in the order of `module.modules()`.

    Normalisation layers keep their start (weight 1, bias 0).

    Args:
        module: Changed in place.
        generator: Source of the draws; None draws from torch's global generator, as every
            `torch.nn` layer does.
        start: Of weights, one of `torch.nn.init`.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            start(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def resized(features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """(B, C, D, H, W) to (B, C, *size), trilinear, voxel corners aligned."""
    return functional.interpolate(features, list(size), mode="trilinear", align_corners=False)


def check_size(images: torch.Tensor, divisor: int | tuple[int, ...], network: str) -> None:
    """Refuse images whose sizes the network cannot halve often enough.

    Args:
        images: (B, C, *spatial).
        divisor: What each spatial size must be a multiple of: one for all axes, or one each.
        network: Its name, for the error.

    Raises:
        GeometryError: A spatial size is not such a multiple, or there are too few or many axes.
    """
    sizes = images.shape[2:]
    divisors = divisor if isinstance(divisor, tuple) else (divisor,) * len(sizes)
    if len(divisors) != len(sizes):
        raise GeometryError(f"{network} takes images of {len(divisors)} axes, but got {len(sizes)}")
    if not any(size % each for size, each in zip(sizes, divisors, strict=True)):
        return
    wanted = [math.ceil(n / each) * each for n, each in zip(sizes, divisors, strict=True)]
    axes = "rows and columns" if len(sizes) == 2 else "sizes"
    alike = len(set(divisors)) == 1
    multiples = str(divisors[0]) if alike else " x ".join(map(str, divisors))
    raise GeometryError(
        f"{network} needs {axes} that are multiples of {multiples}, but got "
        f"{' x '.join(str(int(n)) for n in sizes)}; "
        f"pad or resize to {' x '.join(str(int(n)) for n in wanted)}"
    )


def set_foreground_prior(last: nn.Conv2d | nn.BatchNorm2d, prior: float | None) -> None:
    """Start the last bias so that the network expects little foreground.

    A head whose logits start around 0 calls half of a slice foreground. Under a Dice loss the
    bias has to travel to the organ's share first, at most one learning rate a step; for an organ
    of a hundredth of a slice that takes longer than all the rest.

    Args:
        last: Last layer of the network, with a bias (out_channels,) that is set.
        prior: Expected share of foreground at the start; None leaves the bias as it is.
    """
    if prior is None:
        return
    bias = last.bias
    assert bias is not None  # both heads have one
    with torch.no_grad():
        if len(bias) == 1:
            bias.fill_(math.log(prior / (1 - prior)))
        else:
            bias.fill_(math.log(prior / (len(bias) - 1)))
            bias[0] = math.log(1 - prior)
