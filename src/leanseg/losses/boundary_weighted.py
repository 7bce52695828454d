"""Weighted binary cross-entropy and weighted IoU with boundary weights (paper 003)."""

from __future__ import annotations

import torch
from torch.nn import functional

from leanseg.losses.base import Batch, SegmentationLoss, both, mean_where, space_sum
from leanseg.registry import NotNegative, Odd, Positive


class BoundaryWeightedLoss(SegmentationLoss):
    """Binary cross-entropy plus IoU, voxels near the boundary weighing more (paper 003, eq. 12).

    A voxel's weight w is 1 + 5 |mean of the mask m over a window of 31 voxels a side - m|: 1
    deep inside and far outside, most at thin parts and corners (outside the image, and where a
    voxel is ignored, the mask is 0). Of each sample and class the loss is the sum of w times the
    binary cross-entropy over the sum of w, plus one minus the weighted IoU: the sum of
    w p m + s over the sum of w (p + m) - w p m + s. The result is the mean over samples and
    foreground classes. The loss that the authors' code takes over averages its cross-entropy
    without weights, by an argument that torch reads otherwise; here it is weighted, as the paper
    says.

    A class of several is read as one against the rest: its probability is the softmax's, which
    is the sigmoid of its logit less the logarithm of the summed exponentials of the others.

    Args:
        boundary_weight: The 5 above; 0 gives the unweighted loss of the localisation map
            (equation 11).
        window: The 31 above, an odd number.
        smooth: The s above; 1 as in the public code.
    """

    def __init__(
        self, boundary_weight: NotNegative = 5.0, window: Odd = 31, smooth: Positive = 1.0
    ) -> None:
        super().__init__()
        self.boundary_weight = boundary_weight
        self.window = window
        self.smooth = smooth

    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        known = None if batch.annotated is None else batch.annotated[:, 1:]
        margins = []
        for number in range(1, batch.scores.shape[1]):
            margin = _one_against_the_rest(batch.scores, number)
            if known is not None:
                unknown = ~known[:, number - 1]
                margin = margin.masked_fill(unknown.view(-1, *(1,) * (margin.ndim - 1)), 0)
            margins.append(margin)
        mask = batch.one_hot[:, 1:].to(batch.scores.dtype)
        per_mask = self.per_mask(torch.stack(margins, dim=1), mask, batch.ignored)
        seen = None if batch.seen is None else batch.seen.unsqueeze(1).expand_as(per_mask)
        return mean_where(per_mask, both(known, seen))

    def per_mask(
        self, logits: torch.Tensor, mask: torch.Tensor, ignored: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss (B, C) of sigmoid logits (B, C, *spatial) against masks of 0 and 1.

        Ignored voxels, boolean (B, *spatial), weigh 0; their mask must be 0.
        """
        weights = self.weights(mask)
        if ignored is not None:
            weights = weights.masked_fill(ignored.unsqueeze(1), 0)
        entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        probabilities = logits.sigmoid()
        overlap = space_sum(weights * probabilities * mask)
        total = space_sum(weights * (probabilities + mask))
        # A voxel that counts weighs 1 at least.
        weighted = space_sum(weights * entropy) / space_sum(weights).clamp(min=1)
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
