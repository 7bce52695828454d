"""Losses by name. A new loss is one file here and one line in `LOSSES`."""

from __future__ import annotations

from typing import Any, Final

from leanseg.losses.base import SegmentationLoss
from leanseg.registry import make

# Name -> "module:factory".
LOSSES: Final[dict[str, str]] = {
    "dice": "leanseg.losses.dice:SoftDiceLoss",
    "hinge-dice": "leanseg.losses.hinge_dice:HingeDiceLoss",
    "cross-entropy": "leanseg.losses.cross_entropy:CrossEntropyLoss",
    "hard-cross-entropy": "leanseg.losses.hard_examples:HardExampleCrossEntropyLoss",
    "tanimoto-cross-entropy": "leanseg.losses.tanimoto:TanimotoCrossEntropyLoss",
    "boundary-bce-iou": "leanseg.losses.boundary_weighted:BoundaryWeightedLoss",
    "shared-boundary": "leanseg.losses.shared_boundary:SharedBoundaryLoss",
}


def build_loss(name: str, **options: Any) -> SegmentationLoss:
    """Build a loss.

    Args:
        name: One of `LOSSES`.
        **options: The loss's own.

    Returns:
        A module called with logits (B, K, *spatial), a class map (B, *spatial) of whole numbers
        (-1 for ignored voxels) and, as a choice, `annotated` (B, K); it gives a scalar.

    Raises:
        RecipeError: A name, option or value that is not known.
    """
    return make("loss", LOSSES, name, options)
