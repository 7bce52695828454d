"""Soft Dice loss over the whole batch (papers 000 and 001)."""

from __future__ import annotations

import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.losses.classes import hide_unannotated, without_doubtful_background


class SoftDiceLoss(nn.Module):
    """`1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)`, sums over the batch and space.

    One output channel is read through a sigmoid; more through a softmax, then the loss is the
    mean over the classes. Computed in float32 (float64 for float64 logits), also under autocast.

    A class that a sample does not annotate is unknown there, not absent: its voxels hold the
    background value and its probability would be punished wherever it is right. Such a class
    leaves the sample's sums and softmax, so that its logit has no gradient; a background that
    may hide it leaves the sums too. A class that no sample of the batch annotates leaves the mean.

    Args:
        smooth: The s above, positive: it defines the loss of an absent class. 1 in the public
            code of paper 000.
        include_background: Whether class 0 of several counts in the mean.

    Raises:
        RecipeError: `smooth` is not a positive number.
    """

    def __init__(self, smooth: float = 1.0, *, include_background: bool = False) -> None:
        super().__init__()
        if not isinstance(smooth, int | float) or not smooth > 0:
            msg = f"smooth is {smooth!r} but must be a positive number"
            raise RecipeError(msg)
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
            A scalar in [0, 1), zero where nothing is annotated.
        """
        scores = logits if logits.dtype == torch.float64 else logits.float()
        if scores.shape[1] == 1:
            probabilities, classes = scores.sigmoid(), [1]
        else:
            probabilities = hide_unannotated(scores, annotated).softmax(dim=1)
            classes = list(range(scores.shape[1]))
            if annotated is not None:
                annotated = without_doubtful_background(annotated)
            if not self.include_background:
                probabilities, classes = probabilities[:, 1:], classes[1:]
                annotated = None if annotated is None else annotated[:, 1:]
        dice = self._dice(probabilities, target, classes, annotated)
        if annotated is None:
            return 1 - dice.mean()
        counted = annotated.any(dim=0).to(dice.dtype)
        return ((1 - dice) * counted).sum() / counted.sum().clamp(min=1)

    def _dice(
        self,
        probabilities: torch.Tensor,
        target: torch.Tensor,
        classes: list[int],
        annotated: torch.Tensor | None,
    ) -> torch.Tensor:
        """Soft Dice (C,) of probabilities (B, C, *spatial)."""
        values = torch.tensor(classes, device=target.device)
        spatial = (1,) * (target.ndim - 1)
        truth = target.unsqueeze(1) == values.view(1, -1, *spatial)
        per_sample = [
            (probabilities * truth).flatten(2).sum(dim=2),
            probabilities.flatten(2).sum(dim=2) + truth.flatten(2).sum(dim=2),
        ]
        if annotated is not None:
            per_sample = [sums * annotated for sums in per_sample]
        overlap, total = (sums.sum(dim=0) for sums in per_sample)
        return (2 * overlap + self.smooth) / (total + self.smooth)
