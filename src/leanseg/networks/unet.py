"""The 2-D U-Net baselines of papers 000 and 001, plain and with attention gates."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import batch_norm, check_size, initialise, set_foreground_prior
from leanseg.registry import Count, Rate, Share

HALVINGS = 4


class ConvReLUNorm(nn.Sequential):
    """3x3 convolution with bias, ReLU, then batch normalisation (in this order)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = batch_norm(out_channels)


class DoubleConv(nn.Sequential):
    """Two convolutions; spatial dropout between them in the encoder and the bottleneck.

    Args:
        in_channels: Of the input.
        out_channels: Of both convolutions.
        dropout: Rate of the dropout; 0 leaves it out (decoder).
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = ConvReLUNorm(in_channels, out_channels)
        if dropout:
            self.dropout = nn.Dropout2d(dropout)
        self.second = ConvReLUNorm(out_channels, out_channels)


class UpBlock(nn.Module):
    """Transposed 2x2 convolution, concatenation in front of the skip, two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = DoubleConv(2 * out_channels, out_channels)

    def gate(self, skip: torch.Tensor, _up: torch.Tensor) -> torch.Tensor:
        """What of the skip is passed on: all of it."""
        return skip

    def forward(self, features: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) and (B, C_out, 2H, 2W) to (B, C_out, 2H, 2W)."""
        up = self.up(features)
        return self.convs(torch.cat((up, self.gate(skip, up)), dim=1))


class AttentionGate(nn.Module):
    """`skip * sigmoid(f(relu(g(skip) + h(up))))`, f, g and h being 1x1 convolutions.

    2 n^2 + 3 n + 1 parameters for n channels. This is the additive gate of the public code of paper
    000: it works at the skip's own resolution, all its convolutions have a bias, and none a
    normalisation. It is not the grid gate of Oktay et al. (2018), which samples the skip with
    stride 2 and filters the gated result.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(channels, channels, 1)
        self.up = nn.Conv2d(channels, channels, 1)
        self.weight = nn.Conv2d(channels, 1, 1)

    def forward(self, skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Two (B, C, H, W) to one: the skip times weights in (0, 1) of (B, 1, H, W)."""
        joint = (self.skip(skip) + self.up(up)).relu_()
        return skip * self.weight(joint).sigmoid()


class GatedUpBlock(UpBlock):
    """U-Net's decoder block with an attention gate on the skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.attention = AttentionGate(out_channels)

    def gate(self, skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """What of the skip is passed on, judged by the upsampled features."""
        return self.attention(skip, up)


class UNet(SegmentationNetwork):
    """U-Net with four halvings (31,054,145 parameters with 64 filters, as Keras counts them).

    As in the public code of paper 000: normalisation behind the ReLU, Keras' constants for it
    (eps 1e-3, torch momentum 0.01), transposed convolutions without activation.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters at full resolution; doubled at each halving.
        dropout: Rate of the spatial dropout in the encoder and the bottleneck.
        foreground_prior: Share of foreground that the last bias starts at; None as in Keras.
        generator: Source of the He-uniform start; None takes torch's global generator.
    """

    size_divisor = 2**HALVINGS
    up_block: ClassVar[type[UpBlock]] = UpBlock

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_filters: Count = 64,
        dropout: Rate = 0.3,
        foreground_prior: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = [base_filters * 2**level for level in range(HALVINGS + 1)]
        self.encoder = nn.ModuleList(
            DoubleConv(fan_in, fan_out, dropout)
            for fan_in, fan_out in pairwise([in_channels, *widths[:-1]])
        )
        self.bottleneck = DoubleConv(widths[-2], widths[-1], dropout)
        self.decoder = nn.ModuleList(
            self.up_block(coarse, fine) for coarse, fine in pairwise(reversed(widths))
        )
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
        features, skips = images, []
        for block in self.encoder:
            skip = block(features)
            skips.append(skip)
            features = functional.max_pool2d(skip, 2)
        features = self.bottleneck(features)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            features = block(features, skip)
        return self.head(features)


class AttentionUNet(UNet):
    """Attention U-Net (31,753,349 parameters with 64 filters, as Keras counts them).

    `UNet` with a gate on every skip; the arguments are the same.
    """

    up_block: ClassVar[type[UpBlock]] = GatedUpBlock


unet_64 = partial(UNet, base_filters=64)
unet_16 = partial(UNet, base_filters=16)
attention_unet_64 = partial(AttentionUNet, base_filters=64)
attention_unet_16 = partial(AttentionUNet, base_filters=16)
