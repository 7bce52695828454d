"""The U-Nets that paper 004 compares OBELISK with: all-convolutional, lean, global-FC."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from leanseg.errors import GeometryError, RecipeError
from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import resized
from leanseg.networks.obelisk_layer import ConvNorm, halved, initialise_xavier_normal
from leanseg.registry import Count, Counts, Rate, ThreeCounts, Whole

STEM = 5
SLOPE = 0.1


class AllConvUNet(SegmentationNetwork):
    """The all-convolutional U-Net of Table 1 (878,154 parameters with 9 classes, "880k").

    Convolutions are 3x3x3 with bias, batch normalisation and leaky ReLU (0.1); stride 2 goes
    down, trilinear interpolation up, skips are concatenated. The last convolution is linear.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        widths: Channels of the two convolutions at each halved resolution.
        decoder_widths: Channels of the convolution at each resolution on the way back, but for
            the full one; 0 stands for `out_channels`.
        groups: Of each convolution at `widths`, two for each width.
        decoder_groups: Of the convolution at each of `decoder_widths`.
        dropout: Rate of the spatial dropout behind every convolution but the last.
        generator: Source of the start; None takes torch's global generator.

    Raises:
        RecipeError: The lists do not go together.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        widths: Counts = (16, 32, 64, 80),
        decoder_widths: Sequence[Whole] = (64, 32, 0),
        groups: Counts = (1,) * 8,
        decoder_groups: Sequence[Count] = (1, 1, 1),
        dropout: Rate = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        lengths = [len(each) for each in (widths, groups, decoder_widths, decoder_groups)]
        if lengths != [len(widths), 2 * len(widths), len(widths) - 1, len(widths) - 1]:
            raise RecipeError(
                f"widths, groups, decoder_widths and decoder_groups have {lengths} numbers, but "
                "groups needs two for each of widths and the others one fewer than widths"
            )
        conv = partial(ConvNorm, slope=SLOPE, dropout=dropout)
        self.stem = conv(in_channels, STEM)
        self.encoder = nn.ModuleList(
            nn.Sequential(conv(wide_in, wide, stride=2, groups=down), conv(wide, wide, groups=same))
            for (wide_in, wide), down, same in zip(
                pairwise([STEM, *widths]), groups[::2], groups[1::2], strict=True
            )
        )
        skips = [STEM, *widths][-2::-1]
        outputs = [width or out_channels for width in decoder_widths] + [out_channels]
        self.decoder = nn.ModuleList(
            conv(below + skip, wide, groups=group)
            for below, skip, wide, group in zip(
                [widths[-1], *outputs], skips, outputs, [*decoder_groups, 1], strict=False
            )
        )
        self.head = nn.Conv3d(out_channels, out_channels, 3, padding=1)
        initialise_xavier_normal(self, generator)

    def bottleneck(self, features: torch.Tensor) -> torch.Tensor:
        """What happens at the lowest resolution: nothing more."""
        return features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of volumes.

        Args:
            images: (B, in_channels, D, H, W).

        Returns:
            (B, out_channels, D, H, W), before sigmoid or softmax.
        """
        features = self.stem(images)
        skips = []
        for block in self.encoder:
            skips.append(features)
            features = block(features)
        features = self.bottleneck(features)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            up = resized(features, skip.shape[2:])
            features = block(torch.cat((up, skip), dim=1))
        return self.head(features)


class GlobalFCUNet(AllConvUNet):
    """A U-Net with two fully connected layers over the whole bottleneck (section 3.3).

    20 channels at a sixteenth of the resolution, flattened, to 400 and back, with dropout behind
    both and no activation between; the result stands before the convolved bottleneck. 11,944,816
    parameters for 144 x 144 x 144 and 9 classes, 13,081,422 for 156 x 115 x 160 and 8. The
    paper's 16M for the former is not reachable with that bottleneck (its own 11.7M for the two
    layers agree with the count here).

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        size: Depth, rows and columns of the images: the layers hold for that size alone.
        hidden: Outputs of the first fully connected layer.
        dropout: Rate behind both fully connected layers.
        generator: Source of the start; None takes torch's global generator.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        size: ThreeCounts = (144, 144, 144),
        hidden: Count = 400,
        dropout: Rate = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, widths=(10, 30, 50, 20), decoder_widths=(20, 10, 8)
        )
        self.image_size = tuple(size)
        low = halved(size, 4)
        flat = 20 * low[0] * low[1] * low[2]
        self.down = nn.Linear(flat, hidden)
        self.up = nn.Linear(hidden, flat)
        self.mix = ConvNorm(40, 20, SLOPE)
        self.dropout = nn.Dropout(dropout)
        initialise_xavier_normal(self, generator)

    def bottleneck(self, features: torch.Tensor) -> torch.Tensor:
        """(B, 20, d, h, w) to the same shape."""
        flat = features.flatten(1)
        for linear in (self.down, self.up):
            flat = self.dropout(linear(flat))
        return self.mix(torch.cat((flat.view_as(features), features), dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, D, H, W) of images (B, in_channels, D, H, W).

        Raises:
            GeometryError: The images do not have the size that the network was built for.
        """
        if tuple(images.shape[2:]) != self.image_size:
            wanted, found = (" x ".join(map(str, s)) for s in (self.image_size, images.shape[2:]))
            raise GeometryError(
                f"GlobalFCUNet was built for images of {wanted}, but got {found}; resize them or "
                "build it with option 'size'"
            )
        return super().forward(images)


# Table 1 with grouped convolutions at its low resolutions, as described: 201,642 parameters.
lean_unet = partial(AllConvUNet, groups=(1, 1, 1, 1, 4, 4, 8, 8), decoder_groups=(8, 4, 1))
# The paper's 220k fits 4 groups in its layer 8, the first at 80 channels: 218,922 parameters.
lean_unet_220k = partial(AllConvUNet, groups=(1, 1, 1, 1, 4, 4, 4, 8), decoder_groups=(8, 4, 1))

# The layout of the public code for TCIA: narrower and one level deeper (883,740 with 9 classes).
# There the dropout is on at prediction as well, because the flag of training is not passed; not
# so here.
allconv_unet_tcia = partial(
    AllConvUNet,
    widths=(14, 28, 42, 56, 70),
    decoder_widths=(56, 42, 28, 14),
    groups=(1,) * 10,
    decoder_groups=(1,) * 4,
    dropout=0.5,
)
