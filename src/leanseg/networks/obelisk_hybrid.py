"""The hybrid OBELISK networks: a slim U-Net with two OBELISK encoders beside it (paper 004)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import nn

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import resized
from leanseg.networks.obelisk_layer import (
    OFFSET_SD,
    ConvNorm,
    ObeliskEncoder,
    halved,
    initialise_xavier_normal,
    smoothed,
)
from leanseg.registry import Positive, ThreeCounts


class _Hybrid(SegmentationNetwork):
    """What both layouts share."""

    slope: ClassVar[float]

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        fine_grid: ThreeCounts | None = None,
        coarse_grid: ThreeCounts | None = None,
        offset_sd: Positive = OFFSET_SD,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.fine_grid, self.coarse_grid = fine_grid, coarse_grid
        self.add_layers(in_channels, out_channels, offset_sd)
        initialise_xavier_normal(self, generator)

    def add_layers(self, in_channels: int, out_channels: int, offset_sd: float) -> None:
        """The layers, in the order in which they start."""
        raise NotImplementedError


class HybridTCIA(_Hybrid):
    """Hybrid OBELISK in the layout for TCIA, 144 x 144 x 144 (section 3.2; 229,217, L = 9).

    This layout is that of the paper's text (Fig 4): both OBELISK encoders read the smoothed
    image, 128 offsets for a quarter and 512 for an eighth of the resolution.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        fine_grid: Sampling grid of the 128 offsets (depth, rows, columns); None takes a quarter
            of the image, rounded up.
        coarse_grid: That of the 512 offsets; None takes an eighth. The published checkpoints were
            trained with 18 x 36 x 18, a slip in the public code.
        offset_sd: As `ObeliskLayer`.
        generator: Source of the start; None takes torch's global generator.
    """

    slope: ClassVar[float] = 0.025

    def add_layers(self, in_channels: int, out_channels: int, offset_sd: float) -> None:
        """The layers, in the order in which they start."""
        slope = self.slope
        self.encode_full = ConvNorm(in_channels, 4, slope)
        self.encode_half = nn.Sequential(ConvNorm(4, 16, slope, stride=2), ConvNorm(16, 16, slope))
        self.encode_quarter = nn.Sequential(
            ConvNorm(16, 32, slope, stride=2), ConvNorm(32, 32, slope), ConvNorm(32, 32, slope)
        )
        encoder = partial(ObeliskEncoder, offset_sd=offset_sd)
        self.fine = encoder(in_channels, 16, 128, groups=2, slope=slope)
        self.coarse = encoder(in_channels, 32, 512, groups=4, slope=slope)
        self.decode_quarter = ConvNorm(64, 32, slope)
        self.decode_half = ConvNorm(64, 12, slope)
        self.decode_full = ConvNorm(16, out_channels, slope)
        self.head = nn.Conv3d(out_channels, out_channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of volumes.

        Args:
            images: (B, in_channels, D, H, W) of any size.

        Returns:
            (B, out_channels, D, H, W), before sigmoid or softmax.
        """
        once = smoothed(images, 3)
        skip_full = self.encode_full(images)
        skip_half = self.encode_half(skip_full)
        features = self.encode_quarter(skip_half)
        half, quarter = skip_half.shape[2:], features.shape[2:]
        coarse = self.coarse(smoothed(once, 3), self.coarse_grid or halved(quarter))
        fine = self.fine(once, self.fine_grid or quarter)
        features = self.decode_quarter(torch.cat((features, resized(coarse, quarter)), dim=1))
        features = torch.cat((resized(features, half), resized(fine, half), skip_half), dim=1)
        features = resized(self.decode_half(features), images.shape[2:])
        features = self.decode_full(torch.cat((features, skip_full), dim=1))
        return self.head(features)


class HybridVISCERAL(_Hybrid):
    """Hybrid OBELISK in the layout for VISCERAL, 156 x 115 x 160 (230,208 parameters, L = 8).

    From the public code and its checkpoints: the 128 offsets read the four feature maps of the
    first convolution, there is one convolution per level less, and the classes are told apart
    at half the resolution. Dense heads have plain ReLU here.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        fine_grid: As `HybridTCIA`.
        coarse_grid: As `HybridTCIA`.
        offset_sd: As `ObeliskLayer`.
        generator: Source of the start; None takes torch's global generator.
    """

    slope: ClassVar[float] = 0.05

    def add_layers(self, in_channels: int, out_channels: int, offset_sd: float) -> None:
        """The layers, in the order in which they start."""
        slope = self.slope
        self.encode_full = ConvNorm(in_channels, 4, slope)
        self.encode_half = nn.Sequential(ConvNorm(4, 16, slope, stride=2), ConvNorm(16, 16, slope))
        self.encode_quarter = ConvNorm(16, 32, slope, stride=2)
        encoder = partial(ObeliskEncoder, offset_sd=offset_sd)
        self.fine = encoder(4, 32, 128, groups=4, slope=0.0)
        self.coarse = encoder(in_channels, 32, 512, groups=4, slope=0.0)
        self.decode_quarter = ConvNorm(64, 32, slope)
        self.decode_half = ConvNorm(80, 32, slope)
        self.head = nn.Conv3d(32, out_channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of volumes.

        Args:
            images: (B, in_channels, D, H, W) of any size.

        Returns:
            (B, out_channels, D, H, W), before sigmoid or softmax.
        """
        skip_full = self.encode_full(images)
        skip_half = self.encode_half(skip_full)
        features = self.encode_quarter(skip_half)
        half, quarter = skip_half.shape[2:], features.shape[2:]
        coarse = self.coarse(smoothed(images, 3), self.coarse_grid or halved(quarter))
        fine = self.fine(skip_full, self.fine_grid or quarter)
        features = self.decode_quarter(torch.cat((features, resized(coarse, quarter)), dim=1))
        features = torch.cat((resized(features, half), resized(fine, half), skip_half), dim=1)
        return resized(self.head(self.decode_half(features)), images.shape[2:])
