"""The 2-D attention-gated U-Net baseline of papers 000 and 001.

This is the additive gate of the public code of paper 000: it works at the skip's own resolution,
all its convolutions have a bias, and none a normalisation. It is not the grid gate of Oktay et
al. (2018), which samples the skip with stride 2 and filters the gated result.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import nn

from leanseg.networks.unet import UNet, UpBlock


class AttentionGate(nn.Module):
    """`skip * sigmoid(f(relu(g(skip) + h(up))))`, f, g and h being 1x1 convolutions.

    2 n^2 + 3 n + 1 parameters for n channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(channels, channels, 1)
        self.up = nn.Conv2d(channels, channels, 1)
        self.weight = nn.Conv2d(channels, 1, 1)

    def forward(self, skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Two (B, C, H, W) to one: the skip times weights in (0, 1) of (B, 1, H, W)."""
        joint = (self.skip(skip) + self.up(up)).relu_()
        result: torch.Tensor = skip * self.weight(joint).sigmoid()
        return result


class GatedUpBlock(UpBlock):
    """U-Net's decoder block with an attention gate on the skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.attention = AttentionGate(out_channels)

    def gate(self, skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """What of the skip is passed on, judged by the upsampled features."""
        result: torch.Tensor = self.attention(skip, up)
        return result


class AttentionUNet(UNet):
    """Attention U-Net (31,753,349 parameters with 64 filters, as Keras counts them).

    `UNet` with a gate on every skip; the arguments are the same.
    """

    up_block: ClassVar[type[UpBlock]] = GatedUpBlock


attention_unet_64 = partial(AttentionUNet, base_filters=64)
attention_unet_16 = partial(AttentionUNet, base_filters=16)
