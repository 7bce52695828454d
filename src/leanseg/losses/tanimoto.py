"""Tanimoto loss and cross-entropy together (paper 002)."""

from __future__ import annotations

import torch

from leanseg.losses.base import Batch, SegmentationLoss, mean_where, space_sum
from leanseg.losses.cross_entropy import voxel_cross_entropy
from leanseg.registry import NotNegative, Positive


class TanimotoCrossEntropyLoss(SegmentationLoss):
    """0.6 times the Tanimoto loss plus 0.4 times cross-entropy (paper 002, equation 1).

    The Tanimoto loss of a class is one minus its overlap, the sum of p y + s, over the sum of
    p^2 + y^2 - p y + s, with p the predicted probability, y the truth (0 or 1) and the sums
    over the batch and space; the loss is the mean over all classes, each for itself, background
    included. Cross-entropy is the mean over the voxels. The paper's algorithm 1 typesets the two
    factors as exponents; its text calls them weights, which is followed. A class that no sample
    of the batch annotates leaves the mean.

    Args:
        tanimoto_weight: Factor of the Tanimoto loss.
        cross_entropy_weight: Factor of the cross-entropy.
        smooth: The s above.
        include_background: Whether class 0 counts in the mean of the Tanimoto loss.
    """

    def __init__(
        self,
        tanimoto_weight: NotNegative = 0.6,
        cross_entropy_weight: NotNegative = 0.4,
        smooth: Positive = 1e-5,
        *,
        include_background: bool = True,
    ) -> None:
        super().__init__()
        self.tanimoto_weight = tanimoto_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.smooth = smooth
        self.include_background = include_background

    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        p, y = batch.probabilities, batch.one_hot
        overlap, squares, truth = batch.class_sums(
            space_sum(p * y), space_sum(p.square()), space_sum(y).to(p.dtype)
        )
        union = squares + truth - overlap
        per_class = 1 - (overlap + self.smooth) / (union + self.smooth)
        first = 0 if self.include_background else 1
        tanimoto = mean_where(per_class[first:], batch.certain.any(dim=0)[first:])
        cross_entropy = mean_where(*voxel_cross_entropy(batch))
        return self.tanimoto_weight * tanimoto + self.cross_entropy_weight * cross_entropy
