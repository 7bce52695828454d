"""The non-local localisation module of paper 003 (section 3.2.1, Fig 5, equations 5 to 8).

The positioning module of PFNet (Mei et al., CVPR 2021), on the coarsest features: attention among
the channels, then among the places, then a first coarse map of the tumour.
"""

from __future__ import annotations

import torch
from torch import nn


class ChannelAttention(nn.Module):
    """F' = gamma X F + F, X the softmax over the rows of F F^T (equations 5 and 6).

    No convolutions: queries, keys and values are the features themselves. One parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        # The products are sums over all places, too large for the softmax of half precision.
        with torch.autocast(features.device.type, enabled=False):
            flat = features.flatten(2)
            flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
            attention = (flat @ flat.transpose(1, 2)).softmax(dim=2)
            mixed = (attention @ flat).view(features.shape)
        return self.gamma * mixed + features


class SpatialAttention(nn.Module):
    """F'' = gamma' V X'^T + F', X' the softmax over the rows of Q^T K (equations 7 and 8).

    Queries and keys are 1x1 convolutions to an eighth of the channels, values to all of them.

    Args:
        channels: A multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape; holds a matrix (B, HW, HW) meanwhile."""
        query, key, value = (
            layer(features).flatten(2) for layer in (self.query, self.key, self.value)
        )
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)
        mixed = (value @ attention.to(value.dtype).transpose(1, 2)).view(features.shape)
        result: torch.Tensor = self.gamma * mixed + features
        return result


class NonlocalLocalisation(nn.Module):
    """Channel attention, spatial attention, and a 7x7 convolution to the first map.

    353,411 parameters for 512 channels and one class. Both gammas start at 1, as the text says.

    Args:
        channels: Of the features, a multiple of 8.
        n_classes: Channels of the map.
    """

    def __init__(self, channels: int, n_classes: int = 1) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention()
        self.spatial_attention = SpatialAttention(channels)
        self.map = nn.Conv2d(channels, n_classes, 7, padding=3)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) to features of that shape and logits (B, n_classes, H, W)."""
        located = self.spatial_attention(self.channel_attention(features))
        return located, self.map(located)
