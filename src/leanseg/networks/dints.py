"""DiNTS's network in MONAI, as it is before a search: it stands in for searched networks.

Paper 003's table 1 has three networks whose architecture was searched for (C2FNAS, V-NAS,
HyperSegNAS). He et al. (DiNTS, CVPR 2021) search among the paths and operations of this one, and
MONAI has the space without a result of the search. Here every path is open and every operation is
a 3x3x3 convolution.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import nn

from leanseg.networks.foreign import ForeignNetwork, build_foreign
from leanseg.registry import Count

# The finest of the space's resolutions is half of the images'.
_STEM_HALVINGS = 1
# Of the cells' operations, which are numbered: none, then 3x3x3.
_CONVOLUTION = 1


def dints(
    in_channels: int = 1,
    out_channels: int = 1,
    *,
    base_filters: Annotated[Count, Field(le=128)] = 16,
    blocks: Annotated[Count, Field(le=24)] = 6,
    depths: Annotated[Count, Field(ge=2, le=6)] = 3,
    generator: torch.Generator | None = None,
) -> ForeignNetwork:
    """MONAI's DiNTS with all paths open, for volumes.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        base_filters: Filters of the stem; doubled at each halving.
        blocks: Layers of cells.
        depths: Resolutions, from half of the images' down; sizes are multiples of 2 to this many.
        generator: Seeds the start; None takes torch's global generator.

    Returns:
        The network, mapping (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

    Raises:
        RecipeError: An option is out of range.
        MissingDependencyError: MONAI is not installed.
    """
    options = {
        "generator": generator,
        "spatial_dims": 3,
        "base_filters": base_filters,
        "blocks": blocks,
        "depths": depths,
        "size_divisor": 2 ** (depths - 1 + _STEM_HALVINGS),
    }
    return build_foreign(f"{__name__}:open_space", in_channels, out_channels, options, trusted=True)


def open_space(
    in_channels: int, out_channels: int, base_filters: int, blocks: int, depths: int
) -> nn.Module:
    """The module that `dints` wraps."""
    from monai.networks.nets.dints import DiNTS, TopologyInstance

    n_paths = 3 * depths - 2
    codes = [np.ones((blocks, n_paths)), np.full((blocks, n_paths), _CONVOLUTION)]
    # It prints which sizes it takes.
    with redirect_stdout(StringIO()):
        space = TopologyInstance(codes, base_filters / 32, num_blocks=blocks, num_depths=depths)
    # In tensors they could not be exported: which layers run would depend on values.
    vars(space)["arch_code_a"] = codes[0]
    return DiNTS(space, in_channels, out_channels, node_a=np.ones((blocks + 1, depths)))
