"""The residual U-Net: MONAI's U-Net with residual units (a baseline of paper 003's table 1).

Paper 003 cites Yu et al. (AAAI 2017, mixed residual connections) for its "Res_UNet" and says no
more. This is the residual U-Net that the field uses: Kerfoot et al. (STACOM 2018) as MONAI has
it, two residual units of 3x3 convolution, instance normalisation and PReLU at each level, the
first of them halving.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from leanseg.networks.foreign import ForeignNetwork, build_foreign
from leanseg.registry import Count, Rate, Whole

_LEVELS = 5


def residual_unet(
    in_channels: int = 1,
    out_channels: int = 1,
    *,
    base_filters: Annotated[Count, Field(le=128)] = 64,
    residual_units: Annotated[Whole, Field(le=100)] = 2,
    dropout: Rate = 0.0,
    spatial_dims: int = 2,
    generator: torch.Generator | None = None,
) -> ForeignNetwork:
    """MONAI's residual U-Net with four halvings; sizes are multiples of 16.

    25,969,628 parameters with 64 filters, 1,624,844 with 16 (2-D, one input and output channel).

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters of the finest level; doubled at each halving.
        residual_units: Convolutions that a residual connection spans.
        dropout: Rate of the dropout in every convolution.
        spatial_dims: 2 or 3.
        generator: Seeds the start; None takes torch's global generator.

    Returns:
        The network, mapping (B, in_channels, *spatial) to logits (B, out_channels, *spatial).

    Raises:
        RecipeError: An option is out of range.
        MissingDependencyError: MONAI is not installed.
    """
    options = {
        "generator": generator,
        "spatial_dims": spatial_dims,
        "channels": [base_filters * 2**level for level in range(_LEVELS)],
        "strides": [2] * (_LEVELS - 1),
        "num_res_units": residual_units,
        "dropout": dropout,
        # Not left to be found, which takes longer than all else.
        "size_divisor": 2 ** (_LEVELS - 1),
    }
    return build_foreign("monai:UNet", in_channels, out_channels, options, trusted=False)
