"""The multi-scale U-Net of paper 003: both stages of its cascade are built on it.

Section 3.1.1, Fig 3 and equations 1 to 4. Two encoders see the image: one of 3x3 convolutions,
one whose blocks put a 1x1 and a 5x5 path side by side; the decoder takes skips from both.

Where the paper leaves room, or contradicts itself, this follows the project's specification:

- Filters 64, 128, 256, 512, 1024 from fine to coarse (the paper names none).
- Equation 3 feeds the centre's 1x1 path from the first encoder and its 3x3 path from the second,
  against the rest of the text, where 3x3 belongs to the first and 1x1 and 5x5 to the second; its
  indices are taken as swapped.
- The skips are the maps before the pooling. Equations 1 and 2 write the pooling into C_i, whose
  size would then not fit the decoder's.
- The head is one 1x1 convolution.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import check_size, initialise, set_foreground_prior
from leanseg.registry import Count, Share

HALVINGS: Final = 4


class ConvNormReLU(nn.Sequential):
    """Convolution with bias, batch normalisation, ReLU; the size is kept.

    k^2 i o + 3 o parameters for an odd kernel k, i input and o output channels.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel: Odd.
        dilation: Of the kernel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


def _path(in_channels: int, out_channels: int, first_kernel: int) -> nn.Sequential:
    """A convolution with the given kernel, then one of 3x3."""
    return nn.Sequential(
        ConvNormReLU(in_channels, out_channels, first_kernel),
        ConvNormReLU(out_channels, out_channels),
    )


class TwoScales(nn.Module):
    """Block of the second encoder: a 1x1 and a 5x5 path side by side (equation 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.small = _path(in_channels, out_channels, 1)
        self.large = _path(in_channels, out_channels, 5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) to (B, 2 C_out, H, W)."""
        return torch.cat((self.small(features), self.large(features)), dim=1)


class TwoSkipDecoder(nn.Module):
    """Doubling, then a convolution behind each encoder's skip (equation 4)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.first = ConvNormReLU(2 * out_channels, out_channels)
        self.second = ConvNormReLU(3 * out_channels, out_channels)

    def forward(
        self, features: torch.Tensor, plain: torch.Tensor, scales: torch.Tensor
    ) -> torch.Tensor:
        """Features from below and both skips to features twice as fine.

        Args:
            features: (B, C_in, H, W).
            plain: (B, C_out, 2H, 2W), the first encoder's.
            scales: (B, 2 C_out, 2H, 2W), the second encoder's.

        Returns:
            (B, C_out, 2H, 2W).
        """
        merged = self.first(torch.cat((self.up(features), plain), dim=1))
        return self.second(torch.cat((merged, scales), dim=1))


# What both encoders give at one level, before the pooling: (B, C, H, W) and (B, 2 C, H, W).
Skips = tuple[torch.Tensor, torch.Tensor]


class MultiscaleEncoder(nn.Module):
    """Both encoders and the centre, which joins them.

    Args:
        in_channels: Channels of the images.
        base_filters: Filters f at full resolution; doubled at each of four halvings.

    Attributes:
        out_channels: Of what `forward` gives.
    """

    out_channels: tuple[int, ...]

    def __init__(self, in_channels: int, base_filters: int) -> None:
        super().__init__()
        widths = [base_filters * 2**level for level in range(HALVINGS + 1)]
        steps = tuple(pairwise(widths[:-1]))
        self.plain = nn.ModuleList(
            _path(fan_in, fan_out, 3) for fan_in, fan_out in ((in_channels, base_filters), *steps)
        )
        self.scales = nn.ModuleList(
            TwoScales(fan_in, fan_out)
            for fan_in, fan_out in (
                (in_channels, base_filters),
                *((2 * fine, coarse) for fine, coarse in steps),
            )
        )
        self.centre_plain = _path(widths[-2], widths[-1], 3)
        self.centre_scales = TwoScales(2 * widths[-2], widths[-1])
        self.out_channels = tuple(3 * width for width in reversed(widths))

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, list[Skips]]:
        """Features of the centre, and the skips from fine to coarse.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, 48f, H/16, W/16), and those at H, H/2, H/4 and H/8.
        """
        plain, scales = images, images
        skips: list[Skips] = []
        for plain_block, scales_block in zip(self.plain, self.scales, strict=True):
            skips.append((plain_block(plain), scales_block(scales)))
            plain, scales = (functional.max_pool2d(skip, 2) for skip in skips[-1])
        return torch.cat((self.centre_plain(plain), self.centre_scales(scales)), dim=1), skips

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of the centre and of the four levels before it, coarse to fine.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, 48f, H/16, W/16), (B, 24f, H/8, W/8), (B, 12f, H/4, W/4), (B, 6f, H/2, W/2) and
            (B, 3f, H, W).
        """
        centre, skips = self.encode(images)
        return centre, *(torch.cat(skip, dim=1) for skip in reversed(skips))


class MultiscaleBackbone(MultiscaleEncoder):
    """The multi-scale U-Net without its head.

    102,878,848 parameters with 64 filters and one input channel.

    Args:
        in_channels: Channels of the images.
        base_filters: Filters f at full resolution; doubled at each of four halvings.
        decoded_channels: Of what the decoder goes on from; None for the centre's 48f.
    """

    def __init__(
        self, in_channels: int, base_filters: int, decoded_channels: int | None = None
    ) -> None:
        super().__init__(in_channels, base_filters)
        widths = [base_filters * 2**level for level in reversed(range(HALVINGS))]
        centre = self.out_channels[0]
        below = (decoded_channels or centre, *widths[:-1])
        self.decoder = nn.ModuleList(
            TwoSkipDecoder(fan_in, fan_out) for fan_in, fan_out in zip(below, widths, strict=True)
        )
        self.out_channels = (centre, *widths)

    def decode(self, features: torch.Tensor, skips: list[Skips]) -> tuple[torch.Tensor, ...]:
        """Features of the four decoder blocks, coarse to fine.

        Args:
            features: (B, 48f or decoded_channels, H/16, W/16).
            skips: As `encode` gives them.

        Returns:
            (B, 8f, H/8, W/8), (B, 4f, H/4, W/4), (B, 2f, H/2, W/2) and (B, f, H, W).
        """
        levels = [features]
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            levels.append(block(levels[-1], *skip))
        return tuple(levels[1:])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of the centre and of the four decoder blocks, coarse to fine.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, 48f, H/16, W/16), (B, 8f, H/8, W/8), (B, 4f, H/4, W/4), (B, 2f, H/2, W/2) and
            (B, f, H, W).
        """
        centre, skips = self.encode(images)
        return centre, *self.decode(centre, skips)


class MultiscaleUNet(SegmentationNetwork):
    """The multi-scale U-Net (paper 003, section 3.1): the cascade's first stage.

    Trainable parameters with one input and output channel: 102,878,913 with 64 filters,
    25,730,913 with 32, 6,438,321 with 16.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters at full resolution; doubled at each of four halvings.
        foreground_prior: Share of foreground that the last bias starts at; None starts at 0.
        generator: Source of the He-uniform start; None takes torch's global generator.
    """

    size_divisor = 2**HALVINGS

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_filters: Count = 64,
        foreground_prior: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.backbone = MultiscaleBackbone(in_channels, base_filters)
        self.head = nn.Conv2d(base_filters, out_channels, 1)
        initialise(self, generator)
        set_foreground_prior(self.head, foreground_prior)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, out_channels, H, W), before sigmoid or softmax.

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        check_size(images, self.size_divisor, type(self).__name__)
        return self.head(self.backbone(images)[-1])


multiscale_unet_half = partial(MultiscaleUNet, base_filters=32)
multiscale_unet_quarter = partial(MultiscaleUNet, base_filters=16)
