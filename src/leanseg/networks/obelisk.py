"""The original OBELISK network: one sparse deformable layer and a dense head (paper 004)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import resized
from leanseg.networks.obelisk_layer import (
    GROWTH,
    OFFSET_SD,
    DenseStep,
    ObeliskLayer,
    halved,
    initialise_xavier_normal,
    smoothed,
)
from leanseg.registry import Count, Odd, Positive


class Obelisk(SegmentationNetwork):
    """OBELISK with a 1x1x1 dense net behind it (section 3.3, Table 2; 131,464 parameters, L = 8).

    1,024 pairs of offsets read the smoothed image; all that follows is 1x1x1. So the network
    answers for any points (`at`) or grid (`on`); as a whole it answers on a quarter of the
    resolution, which is brought to half and then to full trilinearly.

    The classifier takes all 256 channels of the dense net, as in the public code and its
    checkpoints; the table's 32 would make 129,160 parameters, not the 130k of the text. The
    text smooths with two means over 3x3x3; the public code, on twice the resolution, with
    5, 5 and 3, which its checkpoints want: `smoothing`.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        n_offsets: Pairs of offsets, or offsets; a multiple of 4.
        paired: Subtract the reading at a second offset (131,464); False is the "unary" variant
            of Table 3 (128,392).
        trainable_offsets: False leaves the offsets where they start: "random offsets" in Table 3,
            pairs as in the network that it is compared with (125,320).
        offset_sd: Standard deviation of the offsets at the start, in normalised coordinates; the
            paper finds 0.02 to 0.1 almost identical.
        smoothing: Odd edge lengths of the means that smooth the image, in their order.
        generator: Source of the start; None takes torch's global generator.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        n_offsets: Annotated[Count, Field(multiple_of=4)] = 1024,
        paired: bool = True,
        trainable_offsets: bool = True,
        offset_sd: Positive = OFFSET_SD,
        smoothing: Sequence[Odd] = (3, 3),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.smoothing = tuple(smoothing)
        self.layer = ObeliskLayer(
            in_channels,
            256,
            n_offsets,
            paired=paired,
            trainable=trainable_offsets,
            offset_sd=offset_sd,
            groups=4,
        )
        self.norm1 = nn.BatchNorm3d(256)
        self.linear = nn.Conv3d(256, 128, 1, bias=False)
        self.norm2 = nn.BatchNorm3d(128)
        widths = [128 + GROWTH * step for step in range(5)]
        # Behind a normalisation already, the first step has none of its own.
        self.dense = nn.Sequential(
            *(DenseStep(width, 0.0, norm=width != widths[0]) for width in widths[:-1])
        )
        self.norm3 = nn.BatchNorm3d(widths[-1])
        self.classifier = nn.Conv3d(widths[-1], out_channels, 1)
        initialise_xavier_normal(self, generator)

    def _classified(self, features: torch.Tensor) -> torch.Tensor:
        """(B, 256, ...) of the layer to logits (B, out_channels, ...)."""
        features = functional.relu(self.norm1(features), inplace=True)
        features = self.dense(self.norm2(self.linear(features)))
        return self.classifier(self.norm3(features))

    def smoothed(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, D, H, W) as the offsets read them."""
        return smoothed(images, *self.smoothing)

    def on(self, images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Logits (B, out_channels, *size) on a grid that spans the images (B, C, D, H, W)."""
        return self._classified(self.layer(self.smoothed(images), size))

    def at(
        self,
        images: torch.Tensor,
        points: torch.Tensor,
        turn: torch.Tensor | None = None,
        *,
        smooth: bool = True,
    ) -> torch.Tensor:
        """Logits at scattered points, for sparse training.

        Args:
            images: (B, in_channels, D, H, W).
            points: (B, N, 3), (column, row, depth), from -1 at the first to 1 at the last voxel.
            turn: (B, 3, 3) that the offsets are multiplied with: the augmentation of "++".
            smooth: False for images that `smoothed` has been through, once for all steps: it
                takes longer than all the rest of a step.

        Returns:
            (B, out_channels, N).
        """
        images = self.smoothed(images) if smooth else images
        features = self.layer.at(images, points, turn)
        # Along the last axis, the convolutions are twenty times faster than along the first.
        return self._classified(features[:, :, None, None]).flatten(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of volumes.

        Args:
            images: (B, in_channels, D, H, W) of any size.

        Returns:
            (B, out_channels, D, H, W), before sigmoid or softmax.
        """
        size = images.shape[2:]
        return resized(resized(self.on(images, halved(size, 2)), halved(size)), size)


obelisk_unary = partial(Obelisk, paired=False)
obelisk_random = partial(Obelisk, trainable_offsets=False)
