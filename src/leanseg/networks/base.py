"""What every network is: the class that those here, and the wrapper of others', inherit."""

from __future__ import annotations

import torch
from torch import nn


class SegmentationNetwork(nn.Module):
    """A module from images to logits of the same size, with one map or several.

    Attributes:
        size_divisor: What each spatial size must be a multiple of: one for all axes, or one each.
        n_maps: How many maps `all_maps` gives: what deep supervision can weigh.
    """

    size_divisor: int | tuple[int, ...] = 1
    n_maps: int = 1

    def all_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The logits of every map of the network, for losses on several of them.

        Args:
            images: (B, in_channels, *spatial).

        Returns:
            `n_maps` times (B, out_channels, *spatial), coarse to fine, what is coarser being
            enlarged to the images' size. What `forward` returns is the last one, unless the
            network says otherwise (U-Net++: the mean).
        """
        return (self(images),)
