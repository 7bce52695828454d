"""Made-up checkpoints in the spelling and the shapes of the public OBELISK code."""

from __future__ import annotations

import torch
from torch import nn

from leanseg.networks import build
from leanseg.networks.obelisk_import import Layout


def checkpoint(
    layout: Layout, classes: int = 3, seed: int = 0
) -> tuple[dict[str, torch.Tensor], nn.Module]:
    """The content of a checkpoint, and its network."""
    options = {"in_channels": 1, "out_channels": classes, **layout.options}
    network = build(layout.network, **options, generator=torch.Generator().manual_seed(seed))
    back = {here: there for there, here in layout.names.items()}
    state = {}
    for key, value in network.state_dict().items():
        layer, _, entry = key.rpartition(".")
        if entry == "offsets":  # (1, K, 1, pairs, 3), the last but one absent where unpaired
            state[back[key]] = value[None, :, None]
        elif key.endswith("layer.weight"):
            state[f"{back[layer]}.{entry}"] = value[:, :, None, None, None]
        else:
            state[f"{back[layer]}.{entry}"] = value
    return state, network
