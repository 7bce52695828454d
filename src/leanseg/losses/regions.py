"""Losses of regions that contain each other: a problem of one output each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from leanseg.errors import GeometryError
from leanseg.losses.base import IGNORED, SegmentationLoss


def region_loss(
    loss: SegmentationLoss,
    logits: torch.Tensor,
    target: torch.Tensor,
    members: Sequence[Sequence[int]],
    annotated: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over regions of a loss of one output channel against the region's mask.

    A region that no sample of the batch annotates leaves the mean.

    Args:
        loss: Any loss that takes one output channel.
        logits: (B, K, *spatial) of K regions.
        target: (B, *spatial) the class of the innermost region, 0 background, -1 where a voxel
            is ignored.
        members: For each region the classes that belong to it: its own and of those inside it.
        annotated: (B, K) boolean, False where the sample does not annotate the region; None where
            all is annotated.

    Returns:
        A scalar, zero where nothing is annotated.

    Raises:
        GeometryError: If there are not as many outputs as regions, or as the loss does.
        RecipeError: As the loss does.
    """
    if logits.shape[1] != len(members):
        raise GeometryError(f"{logits.shape[1]} outputs cannot be of {len(members)} regions")
    ignored = target == IGNORED
    total, counted = logits.new_zeros((), dtype=torch.float32), 0
    for number, classes in enumerate(members):
        own = slice(number, number + 1)
        known = None if annotated is None else annotated[:, own]
        if known is not None and not known.any():
            continue
        inside = torch.isin(target, target.new_tensor(classes)).long()
        total = total + loss(logits[:, own], inside.masked_fill(ignored, IGNORED), known)
        counted += 1
    # Without any region the sum has no gradient; that of nothing is zero.
    return total / counted if counted else logits.sum() * 0
