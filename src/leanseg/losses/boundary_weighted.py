"""Weighted binary cross-entropy and weighted IoU with boundary weights (paper 003)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from leanseg.errors import RecipeError
from leanseg.losses.classes import (
    check_positive,
    check_share,
    class_batch,
    mean_of_annotated,
)


class BoundaryWeightedLoss(nn.Module):
    """Binary cross-entropy plus IoU, voxels near the boundary weighing more (paper 003, eq. 12).

    A voxel's weight w is 1 + 5 |mean of the mask m over a window of 31 voxels a side - m|: 1
    deep inside and far outside, most at thin parts and corners (outside the image the mask is
    0). Of each sample and class the loss is the sum of w times the binary cross-entropy over
    the sum of w, plus one minus the weighted IoU: the sum of w p m + s over the sum of
    w (p + m) - w p m + s. The result is the mean over samples and foreground classes. The loss
    that the authors' code takes over averages its cross-entropy without weights, by an argument
    that torch reads otherwise; here it is weighted, as the paper says.

    A class of several is read as one against the rest: its probability is the softmax's, which
    is the sigmoid of its logit less the logarithm of the summed exponentials of the others.
    float32 (float64 for float64 logits), also under autocast. A class that a sample does not
    annotate leaves the others' softmax and the mean.

    Args:
        boundary_weight: The 5 above; 0 gives the unweighted loss of the localisation map
            (equation 11).
        window: The 31 above, an odd number.
        smooth: The s above, positive; 1 as in the public code.

    Raises:
        RecipeError: An option out of range.
    """

    def __init__(self, boundary_weight: float = 5.0, window: int = 31, smooth: float = 1.0) -> None:
        super().__init__()
        check_share("boundary_weight", boundary_weight)
        check_positive("smooth", smooth)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1 or not window % 2:
            msg = f"window is {window!r} but must be an odd number of voxels"
            raise RecipeError(msg)
        self.boundary_weight = boundary_weight
        self.window = window
        self.smooth = smooth

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
        known = None if batch.annotated is None else batch.annotated[:, 1:]
        margins = []
        for number in range(1, batch.scores.shape[1]):
            margin = _one_against_the_rest(batch.scores, number)
            if known is not None:
                unknown = ~known[:, number - 1]
                margin = margin.masked_fill(unknown.view(-1, *(1,) * (margin.ndim - 1)), 0)
            margins.append(margin)
        mask = batch.one_hot[:, 1:].to(batch.scores.dtype)
        return mean_of_annotated(self.per_mask(torch.stack(margins, dim=1), mask), known)

    def per_mask(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Loss (B, C) of sigmoid logits (B, C, *spatial) against masks of 0 and 1."""
        weights = self.weights(mask)
        entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        probabilities = logits.sigmoid()
        overlap = (weights * probabilities * mask).flatten(2).sum(dim=2)
        total = (weights * (probabilities + mask)).flatten(2).sum(dim=2)
        weighted = (weights * entropy).flatten(2).sum(dim=2) / weights.flatten(2).sum(dim=2)
        iou = (overlap + self.smooth) / (total - overlap + self.smooth)
        return weighted + 1 - iou

    def weights(self, mask: torch.Tensor) -> torch.Tensor:
        """Weights of the voxels of masks (B, C, *spatial), from 1 to 1 + `boundary_weight`."""
        if not self.boundary_weight:
            return torch.ones_like(mask)
        mean = mask
        for axis in range(2, mask.ndim):
            # A mean over a box is a mean along each axis in turn, in 31 steps instead of 31^n.
            lines = mean.movedim(axis, -1)
            flat = lines.reshape(-1, 1, lines.shape[-1])
            pooled = functional.avg_pool1d(flat, self.window, stride=1, padding=self.window // 2)
            mean = pooled.view(lines.shape).movedim(-1, axis)
        return 1 + self.boundary_weight * (mean - mask).abs()


def _one_against_the_rest(scores: torch.Tensor, number: int) -> torch.Tensor:
    """Logit (B, *spatial) whose sigmoid is the softmax probability of one class."""
    if scores.shape[1] == 2:
        return scores[:, number] - scores[:, 1 - number]
    others = torch.cat((scores[:, :number], scores[:, number + 1 :]), dim=1)
    return scores[:, number] - others.logsumexp(dim=1)
