"""Cross-entropy, plain or weighted by class (papers 002 and 004)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field

from leanseg.errors import RecipeError
from leanseg.losses.base import Batch, SegmentationLoss, both
from leanseg.registry import NotNegative


def _not_all_zero(weights: Sequence[float]) -> Sequence[float]:
    if not any(weights):
        raise ValueError("should not be 0 for every class")
    return weights


ClassWeights = (
    Literal["equal", "batch", "training"]
    | Annotated[Sequence[NotNegative], Field(min_length=2), AfterValidator(_not_all_zero)]
)

# Share of the background beside a foreground of mean 1, in the public code of paper 004.
_BACKGROUND = 0.5


class CrossEntropyLoss(SegmentationLoss):
    """`sum(w ce) / sum(w)` over the voxels of the batch, `ce = -log p(class of the voxel)`.

    Paper 004 trains its U-Nets so, unweighted (section 3.4 of the specification). Voxels of a
    class that their sample does not annotate, and samples that annotate nothing, do not count.

    Args:
        class_weights: "equal"; "batch", the square root of the inverse frequency of the classes
            in the mini-batch (see `square_root_inverse_frequency`), "training" in the training
            set, which `count` tells; or one weight per class, background first (two for one
            output channel).
    """

    def __init__(self, class_weights: ClassWeights = "equal") -> None:
        super().__init__()
        self.class_weights = class_weights

    @property
    def wants_counts(self) -> bool:
        """Whether classes are weighted by their voxels in the training set."""
        return self.class_weights == "training"

    def count(self, voxels: torch.Tensor) -> None:
        """Weigh the classes by their voxels (K,) in the training set."""
        self.class_weights = square_root_inverse_frequency(voxels.double()).tolist()

    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        values, counted = voxel_cross_entropy(batch)
        return weighted_mean(values, voxel_weights(self.class_weights, batch, counted))


def voxel_cross_entropy(batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Unweighted cross-entropy of every voxel of a batch.

    Returns:
        Values (B, *spatial), 0 where the voxel does not count, and a boolean (B, *spatial) of
        those that do; None where all count.
    """
    target, counted = batch.target, None
    if batch.ignored is not None:
        counted = ~batch.ignored
        target = target.masked_fill(batch.ignored, 0)
    if batch.annotated is not None:
        # A sample that annotates no foreground class says nothing about any voxel.
        something = batch.annotated[:, 1:].any(dim=1, keepdim=True)
        known = (batch.annotated & something).gather(1, target.flatten(1)).view_as(target)
        # The background is never hidden, so that its logarithm is finite.
        target = target.masked_fill(~known, 0)
        counted = both(known, counted)
    chosen = batch.scores.log_softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
    values = -chosen if counted is None else (-chosen).masked_fill(~counted, 0)
    return values, counted


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`sum(w v) / sum(w)`, zero where all weights are."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)


def square_root_inverse_frequency(counts: torch.Tensor) -> torch.Tensor:
    """Class weights of paper 004 (section 3.4 of the specification).

    The foreground classes weigh 1 / sqrt(count), scaled to a mean of 1 over those that occur;
    the background weighs 0.5. (The public code takes the mean with the background in it; the
    paper's foreground mean of 1 is followed.)

    Args:
        counts: Voxels of each class (K,), background first.

    Returns:
        Weights (K,), 0 for foreground classes that do not occur.
    """
    foreground = counts[1:]
    present = foreground > 0
    weights = torch.where(present, torch.where(present, foreground, 1).rsqrt(), 0)
    weights = weights * present.sum() / torch.where(present.any(), weights.sum(), 1)
    return torch.cat((weights.new_full((1,), _BACKGROUND), weights))


def voxel_weights(
    class_weights: ClassWeights, batch: Batch, counted: torch.Tensor | None
) -> torch.Tensor:
    """Weight of every voxel (B, *spatial), 0 where it does not count.

    Raises:
        RecipeError: A list of another length than the number of classes.
    """
    scores, target = batch.scores, batch.target
    classes = scores.shape[1]
    if class_weights == "equal":
        weights = scores.new_ones(target.shape)
    elif class_weights == "batch":
        seen = target if counted is None else target[counted]
        counts = torch.bincount(seen.flatten(), minlength=classes).to(scores.dtype)
        weights = square_root_inverse_frequency(counts)[target]
    elif class_weights == "training":
        msg = "class_weights 'training' needs the counts of a training set; give 'batch' or a list"
        raise RecipeError(msg)
    elif len(class_weights) == classes:
        weights = scores.new_tensor(class_weights)[target]
    else:
        raise RecipeError(
            f"class_weights has {len(class_weights)} numbers but the network has {classes} "
            "classes with background"
        )
    return weights if counted is None else weights * counted
