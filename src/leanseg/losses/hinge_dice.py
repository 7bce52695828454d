"""Dice loss with a hinge that pulls up classes that are missed altogether (paper 004)."""

from __future__ import annotations

import torch

from leanseg.losses.base import Batch, SegmentationLoss, mean_where, space_sum
from leanseg.registry import NotNegative, Positive

# A class whose Dice lies below a threshold pays a square that is 1 at Dice 0.
_THRESHOLDS = (0.1, 0.01)


class HingeDiceLoss(SegmentationLoss):
    """One minus the mean Dice, and penalties for classes below a Dice of 0.1 and of 0.01.

    Paper 004 (4.2) tried this loss of Gibson et al. (2018). Neither text gives a formula; the
    loss that Gibson's network was published with does: the Dice d of a class is
    twice the sum of p y over the sum of p^2 + y + 1e-5, sums over the batch and space; the
    loss is the mean over all classes, background included, of
    (1 - d) + 10 (1 - min(d, 0.1) / 0.1)^2 + 10 (1 - min(d, 0.01) / 0.01)^2.
    The penalties keep small organs from being given up in the first iterations.

    The Dice of a class that does not occur in the batch is 0 whatever is predicted, a constant
    without gradient; such classes leave the mean, so that a perfect prediction costs nothing.

    Args:
        hinge_weight: Factor of both penalties.
        epsilon: Added to the denominator.
    """

    def __init__(self, hinge_weight: NotNegative = 10.0, epsilon: Positive = 1e-5) -> None:
        super().__init__()
        self.hinge_weight = hinge_weight
        self.epsilon = epsilon

    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        p, y = batch.probabilities, batch.one_hot
        overlap, squares, truth = batch.class_sums(
            space_sum(p * y), space_sum(p.square()), space_sum(y).to(p.dtype)
        )
        dice = 2 * overlap / (squares + truth + self.epsilon)
        loss = 1 - dice
        for threshold in _THRESHOLDS:
            missing = (1 - dice / threshold).clamp(min=0)
            loss = loss + self.hinge_weight * missing.square()
        return mean_where(loss, truth > 0)
