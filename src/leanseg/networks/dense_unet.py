"""The dense U-Net: a U-Net of densely connected blocks (a baseline of paper 003's table 1).

Paper 003 cites Huang et al. (CVPR 2017, DenseNet, a classifier) for its "Dense-UNet" and says no
more. This is the best known U-Net of DenseNet blocks: FC-DenseNet (Jégou et al., CVPRW 2017, and
their public code). For their three input channels and eleven classes it has, with 56, 67 and 103
layers and with running statistics, 1,397,963, 3,502,923 and 9,425,163 parameters; they publish
1.5, 3.5 and 9.4 million.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import check_size, initialise, set_foreground_prior
from leanseg.registry import Count, LayerCounts, Rate, Share


class NormReLUConv(nn.Sequential):
    """Batch normalisation, ReLU, convolution with bias, dropout."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(dropout)


class DenseBlock(nn.ModuleList):
    """Layers of `growth` features each, every one seeing all before it."""

    def __init__(self, in_channels: int, growth: int, n_layers: int, dropout: float) -> None:
        super().__init__(
            NormReLUConv(in_channels + index * growth, growth, 3, dropout)
            for index in range(n_layers)
        )

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) to all features (B, C + n growth, H, W) and the new ones alone."""
        n_given = features.shape[1]
        for layer in self:
            features = torch.cat((features, layer(features)), dim=1)
        return features, features[:, n_given:]


class DenseUNet(SegmentationNetwork):
    """FC-DenseNet, by default with 56 layers.

    Trainable parameters with one input and output channel: 1,374,001 with 56 layers, 3,459,489
    with 67, 9,318,657 with 103.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        layers_per_block: Layers of each block on the way down and, last, of the bottleneck; the
            way up mirrors them. As many halvings as blocks on the way down.
        growth_rate: Features that each layer adds.
        base_filters: Filters of the first convolution.
        dropout: Rate of the dropout behind each convolution of the blocks.
        foreground_prior: Share of foreground that the last bias starts at; None starts at 0.
        generator: Source of the He-uniform start; None takes torch's global generator.

    Attributes:
        size_divisor: Two to the number of halvings: 32 for the published layouts.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        layers_per_block: Annotated[LayerCounts, Field(min_length=2)] = (4, 4, 4, 4, 4, 4),
        growth_rate: Count = 12,
        base_filters: Count = 48,
        dropout: Rate = 0.2,
        foreground_prior: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        *layers_down, bottleneck = layers_per_block
        self.size_divisor = 2 ** len(layers_down)
        self.first = nn.Conv2d(in_channels, base_filters, 3, padding=1)
        self.down, self.transitions = nn.ModuleList(), nn.ModuleList()
        channels, skips = base_filters, []
        for n_layers in layers_down:
            self.down.append(DenseBlock(channels, growth_rate, n_layers, dropout))
            channels += n_layers * growth_rate
            skips.append(channels)
            self.transitions.append(NormReLUConv(channels, channels, 1, dropout))
        self.bottleneck = DenseBlock(channels, growth_rate, bottleneck, dropout)
        self.ups, self.up = nn.ModuleList(), nn.ModuleList()
        n_below = bottleneck
        for skip, n_layers in zip(reversed(skips), reversed(layers_down), strict=True):
            new = n_below * growth_rate
            self.ups.append(nn.ConvTranspose2d(new, new, 3, stride=2))
            self.up.append(DenseBlock(skip + new, growth_rate, n_layers, dropout))
            channels = skip + new + n_layers * growth_rate
            n_below = n_layers
        self.head = nn.Conv2d(channels, out_channels, 1)
        initialise(self, generator)
        set_foreground_prior(self.head, foreground_prior)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices.

        Args:
            images: (B, in_channels, H, W), H and W multiples of `size_divisor`.

        Returns:
            (B, out_channels, H, W), before sigmoid or softmax.

        Raises:
            GeometryError: H or W is not such a multiple.
        """
        check_size(images, self.size_divisor, type(self).__name__)
        features, skips = self.first(images), []
        for block, transition in zip(self.down, self.transitions, strict=True):
            skip, _ = block(features)
            skips.append(skip)
            features = functional.max_pool2d(transition(skip), 2)
        features, new = self.bottleneck(features)
        for upsample, block, skip in zip(self.ups, self.up, reversed(skips), strict=True):
            # One row and column more than twice as many; the published code cuts the last.
            up = upsample(new)[..., : skip.shape[-2], : skip.shape[-1]]
            features, new = block(torch.cat((up, skip), dim=1))
        return self.head(features)


dense_unet_56 = partial(DenseUNet, layers_per_block=(4, 4, 4, 4, 4, 4), growth_rate=12)
dense_unet_67 = partial(DenseUNet, layers_per_block=(5, 5, 5, 5, 5, 5), growth_rate=16)
dense_unet_103 = partial(DenseUNet, layers_per_block=(4, 5, 7, 10, 12, 15), growth_rate=16)
