"""The OBELISK layer and the blocks that the networks of paper 004 are built of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from leanseg.networks.obelisk_sampling import (
    Grid,
    obelisk_convolution,
    obelisk_samples,
    regular_grid,
)

# Standard deviation of new offsets (section 3.1).
OFFSET_SD: Final = 0.05
GROWTH: Final = 32


class ObeliskLayer(nn.Module):
    """Sparse deformable convolution: one big kernel of few taps at trained places (section 3).

    Channel c of the image, read at a position plus offset k (trilinearly, zeros outside), is map
    `c * n_offsets + k`; paired, the reading at a second offset is subtracted from it. A
    1x1x1 convolution without bias mixes the maps. Offsets are (column, row, depth) in the
    coordinates of `grid_sample` with `align_corners=True`: from -1 at the first to 1 at the last
    voxel. The public code was written before that option existed, when it was always on.

    Args:
        in_channels: Of the images.
        out_channels: Of the result.
        n_offsets: Offsets, or pairs of them, per channel.
        paired: The "binary" variant.
        trainable: False freezes the offsets where they start ("random offsets" in Table 3);
            they are then a buffer and no parameter.
        offset_sd: Standard deviation of the offsets at the start, in their coordinates: the
            paper finds 0.02 to 0.1 almost identical.
        groups: Of the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_offsets: int,
        *,
        paired: bool = False,
        trainable: bool = True,
        offset_sd: float = OFFSET_SD,
        groups: int = 1,
    ) -> None:
        super().__init__()
        maps = in_channels * n_offsets
        offsets = torch.empty(n_offsets, 2 if paired else 1, 3)
        if trainable:
            self.offsets = nn.Parameter(offsets)
        else:
            self.register_buffer("offsets", offsets)
        self.weight = nn.Parameter(torch.empty(out_channels, maps // groups))
        self.groups = groups
        self.offset_sd = offset_sd
        self.initialise(None)

    def initialise(self, generator: torch.Generator | None) -> None:
        """Offsets of N(0, offset_sd^2), Xavier-normal weights."""
        with torch.no_grad():
            self.offsets.normal_(std=self.offset_sd, generator=generator)
        nn.init.xavier_normal_(self.weight, generator=generator)

    def forward(self, images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """(B, C, D, H, W) to (B, O, *size), on the grid that spans the image."""
        return self.on(images, regular_grid(size, images.device))

    def on(self, images: torch.Tensor, grid: Grid) -> torch.Tensor:
        """On any grid: coordinates along depth, rows and columns; (B, O, *lengths)."""
        return obelisk_convolution(images, self.offsets, self.weight, grid, groups=self.groups)

    def at(
        self, images: torch.Tensor, points: torch.Tensor, turn: torch.Tensor | None = None
    ) -> torch.Tensor:
        """At scattered points, as in sparse training.

        Args:
            images: (B, C, D, H, W).
            points: (B, N, 3), (column, row, depth).
            turn: (B, 3, 3) that the offsets of each sample are multiplied with (row vectors from
                the left): the affine augmentation of section 4.

        Returns:
            (B, O, N).
        """
        offsets: torch.Tensor = self.offsets
        if turn is not None:
            offsets = torch.einsum("kpi,bij->bkpj", offsets, turn)
        samples = obelisk_samples(images, offsets, points)
        samples = samples.reshape(len(samples), self.groups, -1, samples.shape[2])
        weight = self.weight.reshape(self.groups, -1, self.weight.shape[1])
        return torch.einsum("gom,bgmn->bgon", weight, samples).flatten(1, 2)


class DenseStep(nn.Module):
    """Append 32 channels that a 1x1x1 convolution makes of all that there are.

    Args:
        channels: Of the input.
        slope: Of the activation below zero.
        norm: Whether batch normalisation goes first.
    """

    def __init__(self, channels: int, slope: float, *, norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels) if norm else nn.Identity()
        self.linear = nn.Conv3d(channels, GROWTH, 1, bias=False)
        self.slope = slope

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) to (B, C + 32, ...)."""
        more = functional.leaky_relu(self.linear(self.norm(features)), self.slope, inplace=True)
        return torch.cat((features, more), dim=1)


class ObeliskEncoder(nn.Module):
    """OBELISK layer and dense head of the hybrid networks (section 3.2).

    128 outputs of the layer, three dense steps to 224 channels, and a 1x1x1 convolution.

    Args:
        in_channels: Of the images.
        out_channels: Of the result.
        n_offsets: Unpaired offsets per channel.
        groups: Of the layer's convolution.
        slope: Of all activations below zero.
        offset_sd: As `ObeliskLayer`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_offsets: int,
        *,
        groups: int,
        slope: float,
        offset_sd: float,
    ) -> None:
        super().__init__()
        self.layer = ObeliskLayer(in_channels, 128, n_offsets, groups=groups, offset_sd=offset_sd)
        widths = [128 + GROWTH * step for step in range(4)]
        self.dense = nn.Sequential(*(DenseStep(width, slope) for width in widths[:-1]))
        self.norm = nn.BatchNorm3d(widths[-1])
        self.linear = nn.Conv3d(widths[-1], out_channels, 1, bias=False)
        self.slope = slope

    def forward(self, images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """(B, C, D, H, W) to (B, out_channels, *size)."""
        features = functional.leaky_relu(self.layer(images, size), self.slope)
        features = self.linear(self.norm(self.dense(features)))
        return functional.leaky_relu(features, self.slope, inplace=True)


class ConvNorm(nn.Sequential):
    """3x3x3 convolution with bias, batch normalisation, leaky ReLU.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        slope: Of the activation below zero.
        stride: 2 halves each axis, an odd length up.
        groups: Of the convolution.
        dropout: Rate of the spatial dropout behind the activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slope: float,
        *,
        stride: int = 1,
        groups: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1, stride=stride, groups=groups)
        self.norm = nn.BatchNorm3d(out_channels)
        self.activation = nn.LeakyReLU(slope, inplace=True)
        if dropout:
            self.dropout = nn.Dropout3d(dropout)


def smoothed(images: torch.Tensor, *lengths: int) -> torch.Tensor:
    """Means over cubes of these odd lengths, one after the other; zeros outside are counted."""
    for length in lengths:
        # Axis by axis, which is the same mean.
        for axis in range(3):
            kernel = [length if each == axis else 1 for each in range(3)]
            padding = [each // 2 for each in kernel]
            images = functional.avg_pool3d(images, kernel, stride=1, padding=padding)
    return images


def halved(size: Sequence[int], times: int = 1) -> list[int]:
    """Lengths after convolutions of stride 2: half of them, rounded up."""
    for _ in range(times):
        size = [(length + 1) // 2 for length in size]
    return list(size)


def initialise_xavier_normal(network: nn.Module, generator: torch.Generator | None) -> None:
    """Xavier-normal weights, zero biases and new offsets, in the order of `modules()`.

    As the public code of paper 004 starts its networks.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.Linear):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, ObeliskLayer):
            layer.initialise(generator)
