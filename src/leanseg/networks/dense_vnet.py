"""Dense V-Net, the 3-D baseline of paper 004's comparisons (Gibson et al., IEEE TMI 2018).

As in the authors' code in NiftyNet, without its spatial prior, its batch-wise spatial dropout and
its built-in affine augmentation. One difference: linear resizing is by half-pixel centres, where
the old TensorFlow function starts at the corner of the grid.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import check_size, initialise, resized
from leanseg.registry import Rate

_FIRST: Final = 24
# For each resolution: features that a layer adds, layers, channels of the skip.
_STACKS: Final = ((4, 5, 12), (8, 10, 24), (16, 10, 24))


class ConvNormReLU3d(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU, dropout.

    With stride 2 it pads as TensorFlow's "same" does on even sizes: one voxel more behind than in
    front.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        total = kernel - stride
        before, behind = total // 2, total - total // 2
        self.pad = nn.ConstantPad3d((before, behind) * 3, 0.0)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)


class DenseStack(nn.Module):
    """Dense layers, and convolutions of all their features to a skip and to the next resolution.

    Args:
        in_channels: Of the input.
        growth: Features that each layer adds.
        n_layers: How many layers.
        skip_channels: Of the skip.
        down_channels: Of the halved output; None for none.
        dropout: Behind every convolution but the last dense one.
    """

    def __init__(
        self,
        in_channels: int,
        growth: int,
        n_layers: int,
        skip_channels: int,
        down_channels: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ConvNormReLU3d(
                in_channels + index * growth,
                growth,
                dropout=dropout if index < n_layers - 1 else 0.0,
            )
            for index in range(n_layers)
        )
        channels = in_channels + n_layers * growth
        self.skip = ConvNormReLU3d(channels, skip_channels, dropout=dropout)
        self.down = (
            nn.Identity()
            if down_channels is None
            else ConvNormReLU3d(channels, down_channels, stride=2, dropout=dropout)
        )

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, *spatial) to the skip and, at half the size, the next stack's input."""
        for layer in self.layers:
            features = torch.cat((features, layer(features)), dim=1)
        return self.skip(features), self.down(features)


class DenseVNet(SegmentationNetwork):
    """Dense V-Net, working at half the image's resolution.

    878,514 trainable parameters with nine classes, 866,978 with two (one input channel).

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        dropout: Rate of the dropout behind the convolutions.
        generator: Source of the He-uniform start; None takes torch's global generator.
    """

    size_divisor = 8

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        dropout: Rate = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.image_norm = nn.BatchNorm3d(in_channels)
        self.first = ConvNormReLU3d(in_channels, _FIRST, kernel=5, stride=2)
        self.stacks = nn.ModuleList()
        channels = in_channels + _FIRST
        for index, (growth, n_layers, skip_channels) in enumerate(_STACKS):
            last = index == len(_STACKS) - 1
            down = None if last else _FIRST
            self.stacks.append(DenseStack(channels, growth, n_layers, skip_channels, down, dropout))
            channels = _FIRST
        skips = sum(skip_channels for _, _, skip_channels in _STACKS)
        self.head = nn.Conv3d(in_channels + skips, out_channels, 3, padding=1)
        initialise(self, generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of volumes.

        Args:
            images: (B, in_channels, X, Y, Z), all multiples of 8.

        Returns:
            (B, out_channels, X, Y, Z), before sigmoid or softmax.

        Raises:
            GeometryError: A size is not a multiple of 8.
        """
        check_size(images, self.size_divisor, type(self).__name__)
        small = self.image_norm(_half_size(images))
        features = torch.cat((small, self.first(images)), dim=1)
        maps = [small]
        for stack in self.stacks:
            skip, features = stack(features)
            maps.append(resized(skip, small.shape[2:]))
        return resized(self.head(torch.cat(maps, dim=1)), images.shape[2:])


def _half_size(images: torch.Tensor) -> torch.Tensor:
    """Means of 3 x 3 x 3 voxels at every second one, of those inside the image (sizes even)."""
    means = functional.avg_pool3d(functional.pad(images, (0, 1) * 3), 3, 2)
    for axis in (2, 3, 4):
        steps = torch.arange(means.shape[axis], device=means.device)
        # The last along an axis has two of three inside. (Not counted by pooling ones, which
        # OpenVINO cannot do in bf16.)
        factor = torch.where(steps == means.shape[axis] - 1, 1.5, 1.0).to(means.dtype)
        means = means * factor.reshape([-1 if each == axis else 1 for each in range(5)])
    return means
