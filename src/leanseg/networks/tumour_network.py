"""The tumour network of paper 003: the cascade's second stage (section 3.2, Fig 4).

The multi-scale U-Net's features of five levels are reduced to fewer channels; the non-local
localisation module finds the tumour roughly on the centre, and four focusing modules refine the
map from level to level.

The text takes "the top of the encoder" in one place and of the decoder in another, the authors'
code the first encoder's deepest map; here it is the centre, which joins all three paths, as the
project's specification recommends. The levels below it are the decoder's, or, as section 3.2 has
it, the encoders'.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import check_size, initialise, set_foreground_prior
from leanseg.networks.multiscale_unet import (
    HALVINGS,
    ConvNormReLU,
    MultiscaleBackbone,
    MultiscaleEncoder,
)
from leanseg.networks.tumour_modules import (
    Attention,
    Focusing,
    Interference,
    NonlocalLocalisation,
    resized,
)
from leanseg.registry import Count, Share


class TumourNetwork(SegmentationNetwork):
    """Multi-scale U-Net with non-local localisation and focusing (paper 003, section 3.2).

    Trainable parameters with one input and output channel: 129,179,823 with 64 filters
    (131,965,103 with `reduce_kernel=3`, 109,659,759 with `features="encoder"`, 128,346,219 with
    one kind of `focusing`), 32,322,911 with 32, 8,094,711 with 16.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters f at full resolution, a multiple of 8; the features are reduced to
            8f, 4f, 2f, f and f/2 channels.
        reduce_kernel: Kernel of the context exploration's reducing and fusing convolutions: 1 as
            in the authors' code, 3 as in the text.
        attention: How the localisation reads equation 8: "pfnet" as the network that it is taken
            from, or "printed" over x'(j, i); see `SpatialAttention`.
        features: What is reduced besides the centre: the "decoder" levels, or the "encoder"
            levels of section 3.2, both encoders' maps side by side; then no decoder is built.
        focusing: What the focusing modules look for: "both", or for figure 10 "false-positives"
            or "false-negatives" alone.
        least_channels: What the features are reduced to at least. With 64 filters the paper has
            32 at the finest level and 8 in each branch of its context exploration; a narrow
            network would have but 1 or 2 in a branch, through which little passes.
        foreground_prior: Share of foreground that the last bias starts at; None starts at 0.
        generator: Source of the He-uniform start; None takes torch's global generator.
    """

    size_divisor = 2**HALVINGS
    n_maps = HALVINGS + 1

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_filters: Annotated[Count, Field(multiple_of=8)] = 64,
        reduce_kernel: Literal[1, 3] = 1,
        attention: Attention = "pfnet",
        features: Literal["decoder", "encoder"] = "decoder",
        focusing: Interference = "both",
        least_channels: Annotated[Count, Field(multiple_of=4)] = 4,
        foreground_prior: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        backbone = MultiscaleBackbone if features == "decoder" else MultiscaleEncoder
        self.backbone = backbone(in_channels, base_filters)
        widths = [
            max(8 * base_filters // 2**level, least_channels) for level in range(HALVINGS + 1)
        ]
        self.reduce = nn.ModuleList(
            ConvNormReLU(fan_in, fan_out)
            for fan_in, fan_out in zip(self.backbone.out_channels, widths, strict=True)
        )
        self.localisation = NonlocalLocalisation(widths[0], out_channels, attention)
        self.focusing = nn.ModuleList(
            Focusing(fine, coarse, out_channels, reduce_kernel, focusing)
            for coarse, fine in pairwise(widths)
        )
        initialise(self, generator)
        last = self.focusing[-1].map
        assert isinstance(last, nn.Conv2d)  # what a ModuleList holds is not typed
        set_foreground_prior(last, foreground_prior)

    def level_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The maps of all five levels at their own sizes, coarse to fine.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            Logits (B, out_channels, H / d, W / d) for d = 16, 8, 4, 2, 1: the localisation's and
            the four focusing modules'.

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        check_size(images, self.size_divisor, type(self).__name__)
        levels = [
            reduce(features)
            for reduce, features in zip(self.reduce, self.backbone(images), strict=True)
        ]
        refined, found = self.localisation(levels[0])
        maps = [found]
        for focusing, features in zip(self.focusing, levels[1:], strict=True):
            refined, found = focusing(features, refined, found)
            maps.append(found)
        return tuple(maps)

    def all_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The five maps, all enlarged to (B, out_channels, H, W), for the stage's loss.

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        *coarse, last = self.level_maps(images)
        factors = (2 ** (HALVINGS - level) for level in range(HALVINGS))
        return *(resized(each, factor) for each, factor in zip(coarse, factors, strict=True)), last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices: the last map.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, out_channels, H, W), before sigmoid or softmax.

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        return self.level_maps(images)[-1]


tumour_network_half = partial(TumourNetwork, base_filters=32)
tumour_network_quarter = partial(TumourNetwork, base_filters=16)
