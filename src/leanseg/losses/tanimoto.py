"""Tanimoto loss and cross-entropy together (paper 002)."""

from __future__ import annotations

import torch
from torch import nn

from leanseg.losses.classes import (
    check_positive,
    check_share,
    class_batch,
    class_sums,
    mean_of_annotated,
)
from leanseg.losses.cross_entropy import voxel_cross_entropy


class TanimotoCrossEntropyLoss(nn.Module):
    """0.6 times the Tanimoto loss plus 0.4 times cross-entropy (paper 002, equation 1).

    The Tanimoto loss of a class is one minus its overlap, the sum of p y + s, over the sum of
    p^2 + y^2 - p y + s, with p the predicted probability, y the truth (0 or 1) and the sums
    over the batch and space; the loss is the mean over all classes, each for itself, background
    included. Cross-entropy is the mean over the voxels. The paper's algorithm 1 typesets the two
    factors as exponents; its text calls them weights, which is followed.

    One output channel is read through a sigmoid and counts as two classes, more through a
    softmax; float32 (float64 for float64 logits), also under autocast. A class that a sample
    does not annotate leaves that sample's softmax and sums, and so does a background that may
    hide it; a class that no sample of the batch annotates leaves the mean.

    Args:
        tanimoto_weight: Factor of the Tanimoto loss.
        cross_entropy_weight: Factor of the cross-entropy.
        smooth: The s above, positive.
        include_background: Whether class 0 counts in the mean of the Tanimoto loss.

    Raises:
        RecipeError: An option out of range.
    """

    def __init__(
        self,
        tanimoto_weight: float = 0.6,
        cross_entropy_weight: float = 0.4,
        smooth: float = 1e-5,
        *,
        include_background: bool = True,
    ) -> None:
        super().__init__()
        check_share("tanimoto_weight", tanimoto_weight)
        check_share("cross_entropy_weight", cross_entropy_weight)
        check_positive("smooth", smooth)
        self.tanimoto_weight = tanimoto_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.smooth = smooth
        self.include_background = include_background

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of a batch.

        Args:
            logits: (B, K, *spatial), any floating type.
            target: (B, *spatial) whole numbers: 0 and 1 for K = 1, else 0 to K - 1.
            annotated: (B, K) boolean, False where the sample does not annotate the class;
                None where all is annotated.

        Returns:
            A scalar of at least 0, zero where nothing is annotated.

        Raises:
            GeometryError: Shapes that do not fit one another.
            RecipeError: Targets that are no class.
        """
        batch = class_batch(logits, target, annotated)
        overlap, squares, truth, counted = class_sums(batch)
        union = squares + truth - overlap
        per_class = 1 - (overlap + self.smooth) / (union + self.smooth)
        first = 0 if self.include_background else 1
        tanimoto = mean_of_annotated(per_class[first:], counted[first:])
        cross_entropy = mean_of_annotated(*voxel_cross_entropy(batch))
        return self.tanimoto_weight * tanimoto + self.cross_entropy_weight * cross_entropy
