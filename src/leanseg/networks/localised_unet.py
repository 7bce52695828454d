"""The multi-scale U-Net with non-local localisation: the step "M-P-T-L" of paper 003's table 3.

The paper adds the localisation module before the focusing modules, and does not draw the network
that lies between. Our reading: the centre is reduced and localised as in the tumour network, and
the decoder goes on from the localised features.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import check_size, initialise, set_foreground_prior
from leanseg.networks.multiscale_unet import HALVINGS, ConvNormReLU, MultiscaleBackbone
from leanseg.networks.tumour_modules import NonlocalLocalisation, resized
from leanseg.registry import Count, Share


class LocalisedUNet(SegmentationNetwork):
    """Multi-scale U-Net with localisation but no focusing (our reading of paper 003, table 3).

    Trainable parameters with one input and output channel: 112,146,756 with 64 filters,
    28,054,692 with 32, 7,022,676 with 16. All of `multiscale-unet` fits as its start but the
    first transposed convolution, which sees 8f channels for 48f.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters f at full resolution; doubled at each of four halvings.
        foreground_prior: Share of foreground that the last bias starts at; None starts at 0.
        generator: Source of the He-uniform start; None takes torch's global generator.
    """

    size_divisor = 2**HALVINGS
    n_maps = 2

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_filters: Count = 64,
        foreground_prior: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        reduced = 8 * base_filters
        self.backbone = MultiscaleBackbone(in_channels, base_filters, reduced)
        self.reduce = ConvNormReLU(self.backbone.out_channels[0], reduced)
        self.localisation = NonlocalLocalisation(reduced, out_channels)
        self.head = nn.Conv2d(base_filters, out_channels, 1)
        initialise(self, generator)
        set_foreground_prior(self.head, foreground_prior)

    def _maps(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The localisation's logits at a sixteenth of the size, and the last ones."""
        check_size(images, self.size_divisor, type(self).__name__)
        centre, skips = self.backbone.encode(images)
        located, found = self.localisation(self.reduce(centre))
        return found, self.head(self.backbone.decode(located, skips)[-1])

    def all_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The localisation's map, enlarged, and the last: twice (B, out_channels, H, W).

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        found, last = self._maps(images)
        return resized(found, 2**HALVINGS), last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices: the last map.

        Args:
            images: (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            (B, out_channels, H, W), before sigmoid or softmax.

        Raises:
            GeometryError: H or W is not a multiple of 16.
        """
        return self._maps(images)[-1]


localised_unet_half = partial(LocalisedUNet, base_filters=32)
localised_unet_quarter = partial(LocalisedUNet, base_filters=16)
