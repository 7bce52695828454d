"""Dice loss with a hinge that pulls up classes that are missed altogether (paper 004)."""

from __future__ import annotations

import torch
from torch import nn

from leanseg.losses.classes import check_positive, check_share, class_batch, class_sums

# A class whose Dice lies below a threshold pays a square that is 1 at Dice 0.
_THRESHOLDS = (0.1, 0.01)


class HingeDiceLoss(nn.Module):
    """One minus the mean Dice, and penalties for classes below a Dice of 0.1 and of 0.01.

    Paper 004 (4.2) tried this loss of Gibson et al. (2018). Neither text gives a formula; the
    loss that Gibson's network was published with does: the Dice d of a class is
    twice the sum of p y over the sum of p^2 + y + 1e-5, sums over the batch and space; the
    loss is the mean over all classes, background included, of
    (1 - d) + 10 (1 - min(d, 0.1) / 0.1)^2 + 10 (1 - min(d, 0.01) / 0.01)^2.
    The penalties keep small organs from being given up in the first iterations.

    The Dice of a class that does not occur in the batch is 0 whatever is predicted, a constant
    without gradient; such classes leave the mean, so that a perfect prediction costs nothing.
    One output channel is read through a sigmoid and counts as two classes. Unannotated classes
    leave as in `TanimotoCrossEntropyLoss`.

    Args:
        hinge_weight: Factor of both penalties.
        epsilon: Added to the denominator, positive.

    Raises:
        RecipeError: An option out of range.
    """

    def __init__(self, hinge_weight: float = 10.0, epsilon: float = 1e-5) -> None:
        super().__init__()
        check_share("hinge_weight", hinge_weight)
        check_positive("epsilon", epsilon)
        self.hinge_weight = hinge_weight
        self.epsilon = epsilon

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
        overlap, squares, truth, _ = class_sums(class_batch(logits, target, annotated))
        dice = 2 * overlap / (squares + truth + self.epsilon)
        loss = 1 - dice
        for threshold in _THRESHOLDS:
            missing = (1 - dice / threshold).clamp(min=0)
            loss = loss + self.hinge_weight * missing.square()
        present = (truth > 0).to(loss.dtype)
        return (loss * present).sum() / present.sum().clamp(min=1)
