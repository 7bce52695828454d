"""Cross-entropy of the hardest voxels alone (paper 004)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field

from leanseg.losses.base import Batch
from leanseg.losses.cross_entropy import (
    ClassWeights,
    CrossEntropyLoss,
    voxel_cross_entropy,
    voxel_weights,
    weighted_mean,
)


class HardExampleCrossEntropyLoss(CrossEntropyLoss):
    """Weighted cross-entropy of the hardest quarter of the voxels (paper 004, training).

    Online hard example mining: of the N voxels of the mini-batch exactly floor(0.25 N) count,
    those of highest unweighted cross-entropy (one voxel at least). Their cross-entropy is
    averaged with class weights, `sum(w ce) / sum(w)`, the square root of the inverse frequency
    of the classes. Voxels of a class that their sample does not annotate, and samples that
    annotate nothing, are no part of N.

    The authors count the classes over their training set, "training"; by default those of the
    mini-batch are counted. The original OBELISK is trained with "equal" weights.

    Args:
        kept: Share of the voxels that count, above 0 and at most 1.
        class_weights: As `CrossEntropyLoss`.
    """

    def __init__(
        self,
        kept: Annotated[float, Field(gt=0, le=1)] = 0.25,
        class_weights: ClassWeights = "batch",
    ) -> None:
        super().__init__(class_weights)
        self.kept = kept

    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        values, counted = voxel_cross_entropy(batch)
        weights = voxel_weights(self.class_weights, batch, counted)
        return weighted_mean(values, weights * self.hardest(values.detach(), counted))

    def hardest(self, values: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
        """Which voxels are kept, boolean (B, *spatial).

        Args:
            values: Unweighted cross-entropy (B, *spatial).
            counted: Boolean, same shape, the voxels to choose from; None for all.
        """
        available = values.numel() if counted is None else int(counted.sum())
        number = min(max(math.floor(self.kept * available), 1), available)
        if counted is not None:
            values = values.masked_fill(~counted, float("-inf"))
        places = values.flatten().topk(number, sorted=False).indices
        kept = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
        kept[places] = True
        return kept.view(values.shape)
