"""Soft Dice loss over the whole batch (papers 000 and 001)."""

from __future__ import annotations

import torch

from leanseg.losses.base import Batch, SegmentationLoss, mean_where, space_sum
from leanseg.registry import Positive


class SoftDiceLoss(SegmentationLoss):
    """`1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)`, sums over the batch and space.

    The mean over the classes; of one output channel the foreground's. A class that no sample of
    the batch annotates leaves the mean.

    Args:
        smooth: The s above: it defines the loss of an absent class. 1 in the public code of
            paper 000.
        include_background: Whether class 0 of several counts in the mean.
    """

    def __init__(self, smooth: Positive = 1.0, *, include_background: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        self.include_background = include_background

    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, in [0, 1)."""
        first = 0 if self.include_background and not batch.is_sigmoid else 1
        scores = batch.scores
        probabilities = scores.sigmoid() if batch.is_sigmoid else scores.softmax(dim=1)
        probabilities = batch.where_counted(probabilities[:, first:])
        truth = batch.one_hot[:, first:]
        overlap, total = batch.class_sums(
            space_sum(probabilities * truth),
            space_sum(probabilities) + space_sum(truth),
            first=first,
        )
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        if batch.annotated is None:
            return 1 - dice.mean()
        return mean_where(1 - dice, batch.certain[:, first:].any(dim=0))
