"""The U-Nets of nnU-Net v2, as its plans describe them: plain, or with a residual encoder.

Isensee et al., "nnU-Net Revisited" (MICCAI 2024), and the package `dynamic_network_architectures`:
`PlainConvUNet` and `ResidualEncoderUNet`. Layers have the names that they have there, so that
weights need no translation but for the head. `leanseg.networks.nnunet` is the network of 2018,
which finds its halvings itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import CONVOLUTIONS, NORMS, Layers, check_size, initialise
from leanseg.networks.nnunet import SLOPE, TRANSPOSED
from leanseg.registry import Counts, LayerCounts

Sizes = tuple[int, ...]
POOLS: Final[Layers] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class ConvNorm(nn.Module):
    """Convolution, instance normalisation and, where wanted, LeakyReLU of slope 0.01.

    Args:
        fan_in: Channels of the input.
        fan_out: Of the output.
        kernel: Odd sizes; the padding keeps the size.
        stride: Along each axis.
        bias: Whether the convolution has one.
        is_active: Whether the activation follows.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        kernel: Sizes,
        stride: Sizes | int = 1,
        *,
        bias: bool = True,
        is_active: bool = True,
    ) -> None:
        super().__init__()
        padding = tuple(size // 2 for size in kernel)
        convolution, norm = CONVOLUTIONS[len(kernel)], NORMS[len(kernel)]
        self.conv = convolution(fan_in, fan_out, kernel, stride, padding, bias=bias)
        self.norm = norm(fan_out, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(SLOPE, inplace=True) if is_active else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, fan_in, *spatial) to (B, fan_out, *spatial / stride)."""
        result: torch.Tensor = self.nonlin(self.norm(self.conv(features)))
        return result


class ConvStack(nn.Module):
    """So many convolutions, the first of which may have a stride."""

    def __init__(
        self, n: int, fan_in: int, fan_out: int, kernel: Sizes, stride: Sizes | int, bias: bool
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvNorm(fan_in, fan_out, kernel, stride, bias=bias),
            *(ConvNorm(fan_out, fan_out, kernel, bias=bias) for _ in range(n - 1)),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, fan_in, *spatial) to (B, fan_out, *spatial / stride)."""
        result: torch.Tensor = self.convs(features)
        return result


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip: a mean over the stride, then 1 x 1, where they are needed."""

    def __init__(self, fan_in: int, fan_out: int, kernel: Sizes, stride: Sizes, bias: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(fan_in, fan_out, kernel, stride, bias=bias)
        self.conv2 = ConvNorm(fan_out, fan_out, kernel, bias=bias, is_active=False)
        self.nonlin2 = nn.LeakyReLU(SLOPE, inplace=True)
        skip: list[nn.Module] = []
        if max(stride) > 1:
            skip.append(POOLS[len(kernel)](stride, stride))
        if fan_in != fan_out:
            ones = (1,) * len(kernel)
            skip.append(ConvNorm(fan_in, fan_out, ones, bias=False, is_active=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, fan_in, *spatial) to (B, fan_out, *spatial / stride)."""
        result: torch.Tensor = self.nonlin2(self.conv2(self.conv1(features)) + self.skip(features))
        return result


class ResidualStack(nn.Module):
    """So many residual blocks, the first of which may have a stride."""

    def __init__(
        self, n: int, fan_in: int, fan_out: int, kernel: Sizes, stride: Sizes, bias: bool
    ) -> None:
        super().__init__()
        ones = (1,) * len(kernel)
        self.blocks = nn.Sequential(
            ResidualBlock(fan_in, fan_out, kernel, stride, bias),
            *(ResidualBlock(fan_out, fan_out, kernel, ones, bias) for _ in range(n - 1)),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, fan_in, *spatial) to (B, fan_out, *spatial / stride)."""
        result: torch.Tensor = self.blocks(features)
        return result


class Encoder(nn.Module):
    """Stages from fine to coarse, behind a stem where there is one."""

    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What every stage gives."""
        found = [images if self.stem is None else self.stem(images)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]


class Decoder(nn.Module):
    """Stages from coarse to fine, each behind a transposed convolution."""

    def __init__(self, ups: Sequence[nn.Module], stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.transpconvs, self.stages = nn.ModuleList(ups), nn.ModuleList(stages)

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        """From what the encoder's stages give to features at full resolution."""
        features = skips[-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            features = stage(torch.cat((up(features), skip), dim=1))
        return features


class DynamicUNet(SegmentationNetwork):
    """A U-Net with kernels, strides and widths of its own on every stage.

    Args:
        in_channels: Channels of the images.
        out_channels: Of the logits.
        residual: Whether the encoder is residual, with a stem ahead of it.
        features: Channels of each stage, fine to coarse.
        kernels: Of each stage, odd sizes along each axis: as many as the images have.
        strides: Ahead of each stage along each axis, and of the way back.
        convolutions: Of each stage of the encoder: convolutions, or residual blocks.
        decoder_convolutions: Of each stage of the decoder, coarse to fine; one less.
        bias: Whether convolutions have one ahead of their normalisation, and transposed ones.
        generator: Source of the He-normal start; None takes torch's global generator.

    Raises:
        RecipeError: Stages or axes do not agree in number.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        residual: bool,
        features: Counts = (32, 64),
        kernels: Sequence[Counts] = ((3, 3, 3), (3, 3, 3)),
        strides: Sequence[Counts] = ((1, 1, 1), (2, 2, 2)),
        convolutions: LayerCounts = (2, 2),
        decoder_convolutions: LayerCounts = (2,),
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        n, axes = len(features), {len(each) for each in (*kernels, *strides)}
        given = [len(each) for each in (kernels, strides, convolutions)]
        if {*given, len(decoder_convolutions) + 1} != {n} or axes not in ({2}, {3}):
            raise RecipeError(
                f"a U-Net of {n} stages needs as many kernels, strides and convolutions, one less "
                "decoder_convolutions, and 2 or 3 axes throughout"
            )
        dimensions = axes.pop()
        sizes = [tuple(kernel) for kernel in kernels]
        steps = [tuple(stride) for stride in strides]
        divisors = tuple(math.prod(step[axis] for step in steps) for axis in range(dimensions))
        self.size_divisor = divisors[0] if len(set(divisors)) == 1 else divisors
        fan_in, stem = in_channels, None
        if residual:
            stem = ConvStack(1, in_channels, features[0], sizes[0], 1, bias)
            fan_in = features[0]
        stages: list[nn.Module] = []
        for count, width, kernel, step in zip(convolutions, features, sizes, steps, strict=True):
            stack = ResidualStack if residual else ConvStack
            stage = stack(count, fan_in, width, kernel, step, bias)
            # As they are nested there.
            stages.append(stage if residual else nn.Sequential(stage))
            fan_in = width
        self.encoder = Encoder(stages, stem)
        ups = list(zip(pairwise(features), steps[1:], sizes[:-1], strict=True))[::-1]
        transposed = partial(TRANSPOSED[dimensions], bias=bias)
        self.decoder = Decoder(
            [transposed(coarse, fine, step, step) for (fine, coarse), step, _ in ups],
            [
                ConvStack(count, 2 * fine, fine, kernel, 1, bias)
                for count, ((fine, _), _, kernel) in zip(decoder_convolutions, ups, strict=True)
            ],
        )
        self.head = CONVOLUTIONS[dimensions](features[0], out_channels, 1)
        initialise(self, generator, partial(nn.init.kaiming_normal_, a=SLOPE))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch.

        Args:
            images: (B, in_channels, *spatial), multiples of `size_divisor`.

        Returns:
            (B, out_channels, *spatial).

        Raises:
            GeometryError: A size is not a multiple.
        """
        check_size(images, self.size_divisor, "the U-Net")
        logits: torch.Tensor = self.head(self.decoder(self.encoder(images)))
        return logits


plain_conv_unet = partial(DynamicUNet, residual=False)
residual_encoder_unet = partial(DynamicUNet, residual=True)
