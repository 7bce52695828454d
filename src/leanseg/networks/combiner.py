"""The combiner of a stacked CNN: a small network on other networks' probabilities (paper 002)."""

from __future__ import annotations

import torch
from torch import nn

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import initialise
from leanseg.registry import Count

_SLOPE = 0.01


class Combiner(SegmentationNetwork):
    """Two 3 x 3 convolutions with LeakyReLU, a 1 x 1 convolution (spec section 2.4).

    Paper 002 ("Stacked CNN") says what is combined, not by which layers. Instance normalisation
    takes out how sure the members are: a faint doubt in a slice without the organ becomes as
    strong as the organ itself. Of 20 hippocampi that took no part, a stack with it labelled 127
    voxels more than 6 mm away, and without it none; so it is left out unless it is asked for.

    Trainable parameters, for c channels, w filters and K outputs: 9 w (c + w) + 2 w + w K + K,
    and 4 w more with instance normalisation.

    Args:
        in_channels: Maps of all members.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Of both convolutions.
        instance_norm: Whether both are normalised.
        generator: Source of the starting weights; None takes torch's global generator.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_filters: Count = 16,
        instance_norm: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, base_filters):
            layers.append(nn.Conv2d(channels, base_filters, 3, padding=1))
            if instance_norm:
                layers.append(nn.InstanceNorm2d(base_filters, affine=True))
            layers.append(nn.LeakyReLU(_SLOPE, inplace=True))
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(base_filters, out_channels, 1)
        initialise(self, generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, rows, columns) of maps (B, in_channels, rows, columns)."""
        logits: torch.Tensor = self.head(self.body(images))
        return logits
