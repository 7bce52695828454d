"""The context exploration module of paper 003 (section 3.2.2)."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from leanseg.networks.multiscale_unet import ConvNormReLU

# Kernel of the local convolution and dilation of the one behind it, for each branch.
_BRANCHES: Final = ((1, 1), (3, 2), (5, 4), (7, 8))


class ContextExploration(nn.Module):
    """Four branches of growing reach, each fed with the one before it.

    Every branch reduces the channels to a quarter, adds the previous branch's output, and applies
    a k x k convolution (k = 1, 3, 5, 7) and a dilated 3x3 one (dilation 1, 2, 4, 8); the four are
    concatenated and fused. Every convolution has normalisation and ReLU.

    The text reduces and fuses with 3x3 convolutions, the authors' code and PFNet's with 1x1: 1x1
    is the default. 625,664 parameters for 256 channels (1x1).

    Args:
        channels: Of input and output, a multiple of 4.
        reduce_kernel: 1 or 3, of the reducing and fusing convolutions.
    """

    def __init__(self, channels: int, reduce_kernel: int = 1) -> None:
        super().__init__()
        quarter = channels // 4
        self.reduce = nn.ModuleList(
            ConvNormReLU(channels, quarter, reduce_kernel) for _ in _BRANCHES
        )
        self.branches = nn.ModuleList(
            nn.Sequential(
                ConvNormReLU(quarter, quarter, kernel),
                ConvNormReLU(quarter, quarter, 3, dilation),
            )
            for kernel, dilation in _BRANCHES
        )
        self.fuse = ConvNormReLU(channels, channels, reduce_kernel)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        outputs: list[torch.Tensor] = []
        for reduce, branch in zip(self.reduce, self.branches, strict=True):
            reduced = reduce(features)
            outputs.append(branch(reduced + outputs[-1] if outputs else reduced))
        result: torch.Tensor = self.fuse(torch.cat(outputs, dim=1))
        return result
