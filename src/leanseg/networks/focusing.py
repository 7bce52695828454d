"""The focusing module of paper 003 (section 3.2.2, Fig 6, equation 9)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from leanseg.networks.context_exploration import ContextExploration
from leanseg.networks.multiscale_unet import ConvNormReLU


def foreground(logits: torch.Tensor) -> torch.Tensor:
    """Probability (B, 1, H, W) that a pixel is of any class but the background.

    The text normalises the map with a softmax, which is 1 everywhere on its single channel: the
    sigmoid is meant. Several classes (which the paper has not) count as one against background.
    """
    if logits.shape[1] == 1:
        return logits.sigmoid()
    return 1 - logits.softmax(dim=1)[:, :1]


def resized(images: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, C, H, W) enlarged bilinearly, corners aligned as in the public code."""
    return functional.interpolate(images, scale_factor=factor, mode="bilinear", align_corners=True)


class Focusing(nn.Module):
    """Removes false positives and adds false negatives of the coarser map.

    With p the coarser map's foreground: what the context within p reveals is subtracted from the
    coarser features, what the context outside reveals is added, each followed by normalisation
    and ReLU; a 7x7 convolution makes the finer map. Parameters for one class and (channels,
    coarser): 7,688,195 for (256, 512), 1,927,171 for (128, 256), 484,355 for (64, 128), 122,371
    for (32, 64).

    Args:
        channels: Of this level, a multiple of 4.
        coarse_channels: Of the level above.
        n_classes: Channels of the maps.
        reduce_kernel: 1 or 3, see `ContextExploration`.
    """

    def __init__(
        self, channels: int, coarse_channels: int, n_classes: int = 1, reduce_kernel: int = 1
    ) -> None:
        super().__init__()
        self.up = ConvNormReLU(coarse_channels, channels, 7)
        self.false_positives = ContextExploration(channels, reduce_kernel)
        self.false_negatives = ContextExploration(channels, reduce_kernel)
        self.subtracted = nn.Parameter(torch.ones(1))
        self.added = nn.Parameter(torch.ones(1))
        self.first_norm = nn.BatchNorm2d(channels)
        self.second_norm = nn.BatchNorm2d(channels)
        self.map = nn.Conv2d(channels, n_classes, 7, padding=3)

    def forward(
        self, features: torch.Tensor, coarse: torch.Tensor, coarse_map: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A finer map.

        Args:
            features: (B, channels, 2H, 2W) of this level.
            coarse: (B, coarse_channels, H, W), refined features of the level above.
            coarse_map: Logits (B, n_classes, H, W) of the level above.

        Returns:
            Refined features (B, channels, 2H, 2W) and logits (B, n_classes, 2H, 2W).
        """
        inside = foreground(resized(coarse_map, 2))
        positives = self.false_positives(features * inside)
        negatives = self.false_negatives(features * (1 - inside))
        up = resized(self.up(coarse), 2)
        refined = self.first_norm(up - self.subtracted * positives).relu()
        refined = self.second_norm(refined + self.added * negatives).relu()
        return refined, self.map(refined)
