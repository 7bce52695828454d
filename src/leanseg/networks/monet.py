"""MoNet: shallow, U-Net-like, with repeated decreasingly dilated convolutions (paper 000)."""

from __future__ import annotations

import torch
from torch import nn

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import (
    batch_norm,
    check_size,
    conv_norm_elu,
    double_norm_elu,
    halve_norm_elu,
    initialise,
    set_foreground_prior,
)
from leanseg.registry import Count, Rate, Share


class RDDC(nn.Module):
    """Repeated decreasingly dilated convolutions, dilations 4, 3, 2, 1 (paper 000, Fig 3).

    `a = D(f4(x)); b = D(f3(x + a)); e = D(f2(b)); y = f1(b + e)`, with f the dilated
    convolution, normalisation and ELU, and D spatial dropout: none after the last convolution,
    and no residual around the whole, as in the public code that gives the published count.

    Args:
        channels: Of the input and the output.
        dropout: Rate of the spatial dropout.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.dilated4 = conv_norm_elu(channels, channels, dilation=4)
        self.dilated3 = conv_norm_elu(channels, channels, dilation=3)
        self.dilated2 = conv_norm_elu(channels, channels, dilation=2)
        self.dilated1 = conv_norm_elu(channels, channels, dilation=1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        first = self.dropout(self.dilated4(features))
        second = self.dropout(self.dilated3(features + first))
        third = self.dropout(self.dilated2(second))
        return self.dilated1(second + third)


class Encoder(nn.Module):
    """Convolution, RDDC (the long skip leaves here), halving."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = conv_norm_elu(in_channels, out_channels)
        self.rddc = RDDC(out_channels, dropout)
        self.down = halve_norm_elu(out_channels)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C_in, H, W) to the skip (B, C_out, H, W) and (B, C_out, H/2, W/2)."""
        skip = self.rddc(self.conv(features))
        return skip, self.down(skip)


class Decoder(nn.Module):
    """Doubling, concatenation behind the skip, convolution, RDDC."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.up = double_norm_elu(in_channels)
        self.conv = conv_norm_elu(in_channels + out_channels, out_channels)
        self.rddc = RDDC(out_channels, dropout)

    def forward(self, features: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) and (B, C_out, 2H, 2W) to (B, C_out, 2H, 2W)."""
        merged = torch.cat((skip, self.up(features)), dim=1)
        return self.rddc(self.conv(merged))


class MoNet(SegmentationNetwork):
    """MoNet (paper 000, "Network architecture"; 403,556 parameters as Keras counts them).

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters at full resolution; doubled at each halving.
        dropout: Rate of the spatial dropout in the RDDC blocks.
        foreground_prior: Share of foreground that the last bias starts at; None as in Keras.
        generator: Source of the He-uniform start; None takes torch's global generator.
    """

    size_divisor = 4

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_filters: Count = 16,
        dropout: Rate = 0.2,
        foreground_prior: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        fine, middle, coarse = base_filters, 2 * base_filters, 4 * base_filters
        self.encoder1 = Encoder(in_channels, fine, dropout)
        self.encoder2 = Encoder(fine, middle, dropout)
        self.bottleneck = nn.Sequential(conv_norm_elu(middle, coarse), RDDC(coarse, dropout))
        self.decoder1 = Decoder(coarse, middle, dropout)
        self.decoder2 = Decoder(middle, fine, dropout)
        # The normalisation behind the 1x1 convolution is part of the logits.
        norm = batch_norm(out_channels)
        self.head = nn.Sequential(nn.Conv2d(fine, out_channels, 1, bias=False), norm)
        initialise(self, generator)
        set_foreground_prior(norm, foreground_prior)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 4.

        Returns:
            (B, out_channels, H, W), before sigmoid or softmax.

        Raises:
            GeometryError: H or W is not a multiple of 4.
        """
        check_size(images, self.size_divisor, "MoNet")
        skip1, features = self.encoder1(images)
        skip2, features = self.encoder2(features)
        features = self.decoder1(self.bottleneck(features), skip2)
        return self.head(self.decoder2(features, skip1))
