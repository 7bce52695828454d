"""U-Net++: U-Nets of every depth in one, with dense skips (a baseline of paper 003's table 1).

Zhou et al., DLMIA 2018 (reference 38 of paper 003). Their figure for it, 9.04 million parameters,
is met by the layers of their public code: filters 32 to 512, no normalisation, transposed 2x2
convolutions that halve the filters, a head for each depth. MONAI's BasicUNetPlusPlus
("monai:BasicUNetPlusPlus") differs from it in the widths of the upsampled features and in
normalisation: 9.12 million with these filters.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import check_size, initialise, set_foreground_prior
from leanseg.registry import Count, Share

HALVINGS: Final = 4


def _two_convolutions(in_channels: int, out_channels: int, normalisation: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in in (in_channels, out_channels):
        layers.append(nn.Conv2d(fan_in, out_channels, 3, padding=1))
        if normalisation:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Node(nn.Module):
    """X^(i,j): all maps of its level so far and the upsampled one from below."""

    def __init__(self, below: int, channels: int, n_before: int, normalisation: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, channels, 2, stride=2)
        self.convs = _two_convolutions((n_before + 1) * channels, channels, normalisation)

    def forward(self, below: torch.Tensor, before: list[torch.Tensor]) -> torch.Tensor:
        """(B, C_below, H, W) and maps (B, C, 2H, 2W) to (B, C, 2H, 2W)."""
        return self.convs(torch.cat((self.up(below), *before), dim=1))


class UNetPP(SegmentationNetwork):
    """U-Net++ with four halvings.

    9,041,700 parameters with 32 filters, one input and one output channel.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters at full resolution; doubled at each halving.
        deep_supervision: A head on the U-Net of each depth, and the mean of their logits as the
            result (the paper's accurate mode averages its four outputs); else a head on the
            deepest alone.
        normalisation: Batch normalisation behind each 3x3 convolution, as most reimplementations
            have it (9,048,996 trainable parameters, 9,056,292 with running statistics).
        foreground_prior: Share of foreground that the last biases start at; None starts at 0.
        generator: Source of the He-uniform start; None takes torch's global generator.
    """

    size_divisor = 2**HALVINGS

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_filters: Count = 32,
        deep_supervision: bool = True,
        normalisation: bool = False,
        foreground_prior: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = [base_filters * 2**level for level in range(HALVINGS + 1)]
        self.encoder = nn.ModuleList(
            _two_convolutions(fan_in, fan_out, normalisation)
            for fan_in, fan_out in pairwise([in_channels, *widths])
        )
        # columns[j - 1][i] is the node X^(i,j): level i, j maps of its level before it.
        self.columns = nn.ModuleList(
            nn.ModuleList(
                Node(widths[level + 1], widths[level], column, normalisation)
                for level in range(HALVINGS + 1 - column)
            )
            for column in range(1, HALVINGS + 1)
        )
        self.heads = nn.ModuleList(
            nn.Conv2d(base_filters, out_channels, 1)
            for _ in range(HALVINGS if deep_supervision else 1)
        )
        self.n_maps = len(self.heads)
        initialise(self, generator)
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)  # what a ModuleList holds is not typed
            set_foreground_prior(head, foreground_prior)

    def all_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The logits of every head, of the shallowest U-Net first; `forward` gives their mean.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, out_channels, H, W) each: four with deep supervision, else one.

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        check_size(images, self.size_divisor, type(self).__name__)
        levels: list[list[torch.Tensor]] = []
        features = images
        for index, block in enumerate(self.encoder):
            features = block(functional.max_pool2d(features, 2) if index else features)
            levels.append([features])
        for column in self.columns:
            assert isinstance(column, nn.ModuleList)
            for level, node in enumerate(column):
                levels[level].append(node(levels[level + 1][-1], levels[level]))
        deepest = levels[0][-len(self.heads) :]
        return tuple(head(each) for head, each in zip(self.heads, deepest, strict=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, out_channels, H, W), before sigmoid or softmax.

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        return torch.stack(self.all_maps(images)).mean(dim=0)
