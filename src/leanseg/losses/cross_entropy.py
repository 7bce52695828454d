"""Cross-entropy, plain or weighted by class (papers 002 and 004)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.losses.classes import ClassBatch, class_batch

ClassWeights = str | Sequence[float]

# Share of the background beside a foreground of mean 1, in the public code of paper 004.
_BACKGROUND = 0.5


class CrossEntropyLoss(nn.Module):
    """`sum(w ce) / sum(w)` over the voxels of the batch, `ce = -log p(class of the voxel)`.

    Paper 004 trains its U-Nets so, unweighted (section 3.4 of the specification). One output
    channel is read through a sigmoid, more through a softmax; float32 (float64 for float64
    logits), also under autocast. Voxels of a class that their sample does not annotate, and
    samples that annotate nothing, do not count.

    Args:
        class_weights: "equal"; "batch", the square root of the inverse frequency of the classes
            in the mini-batch (see `square_root_inverse_frequency`); or one weight per class,
            background first (two for one output channel).

    Raises:
        RecipeError: Class weights that are none of these.
    """

    def __init__(self, class_weights: ClassWeights = "equal") -> None:
        super().__init__()
        self.class_weights = checked_class_weights(class_weights)

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
            RecipeError: Targets that are no class, or a number of weights that is not K.
        """
        batch = class_batch(logits, target, annotated)
        voxels = voxel_cross_entropy(batch)
        weights = voxel_weights(self.class_weights, batch, voxels.counted)
        return weighted_mean(voxels.values, weights)


class VoxelCrossEntropy(NamedTuple):
    """Cross-entropy of every voxel.

    Attributes:
        values: (B, *spatial), 0 where the voxel does not count.
        counted: (B, *spatial) boolean; None where all count.
    """

    values: torch.Tensor
    counted: torch.Tensor | None


def voxel_cross_entropy(batch: ClassBatch) -> VoxelCrossEntropy:
    """Unweighted cross-entropy of every voxel of a batch."""
    target, counted = batch.target, None
    if batch.annotated is not None:
        # A sample that annotates no foreground class says nothing about any voxel.
        something = batch.annotated[:, 1:].any(dim=1, keepdim=True)
        known = batch.annotated & something
        counted = known.gather(1, target.flatten(1)).view_as(target)
        # The background is never hidden, so that its logarithm is finite.
        target = target.masked_fill(~counted, 0)
    chosen = batch.scores.log_softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
    values = -chosen if counted is None else (-chosen).masked_fill(~counted, 0)
    return VoxelCrossEntropy(values, counted)


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


def checked_class_weights(class_weights: ClassWeights) -> str | tuple[float, ...]:
    """The option `class_weights` as it can be used.

    Raises:
        RecipeError: Neither "equal" nor "batch" nor a list of numbers of at least 0.
    """
    if class_weights in ("equal", "batch"):
        return str(class_weights)
    if isinstance(class_weights, Sequence) and not isinstance(class_weights, str):
        numbers = all(isinstance(w, int | float) and 0 <= w < float("inf") for w in class_weights)
        if numbers and any(class_weights) and len(class_weights) >= 2:
            return tuple(float(weight) for weight in class_weights)
    msg = (
        f"class_weights is {class_weights!r} but must be 'equal', 'batch' or a list with one "
        "number of at least 0 for each class, background first, not all 0"
    )
    raise RecipeError(msg)


def voxel_weights(
    class_weights: str | tuple[float, ...], batch: ClassBatch, counted: torch.Tensor | None
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
    elif len(class_weights) == classes:
        weights = scores.new_tensor(class_weights)[target]
    else:
        msg = (
            f"class_weights has {len(class_weights)} numbers but the network has {classes} "
            "classes with background"
        )
        raise RecipeError(msg)
    return weights if counted is None else weights * counted
