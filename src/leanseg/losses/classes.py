"""What the losses share: checked arguments, and the classes that a sample annotates.

A class that a sample does not annotate is unknown there: it leaves the sample's softmax, so that
its logit has no gradient, and its own term. A voxel labelled background in such a sample may
hide it. What stays certain of that voxel is that it is none of the annotated classes, and this
alone the softmax over the annotated classes says; a term of the background itself leaves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from leanseg.errors import GeometryError, RecipeError


class ClassBatch(NamedTuple):
    """A batch as two classes or more.

    Attributes:
        scores: Logits (B, K, *spatial) with K of at least 2, float32 or float64, -inf where the
            sample does not annotate the class.
        target: Classes (B, *spatial), int64.
        annotated: (B, K) boolean, or None where all is annotated.
    """

    scores: torch.Tensor
    target: torch.Tensor
    annotated: torch.Tensor | None

    @property
    def one_hot(self) -> torch.Tensor:
        """The classes as booleans (B, K, *spatial)."""
        values = torch.arange(self.scores.shape[1], device=self.target.device)
        return self.target.unsqueeze(1) == values.view(1, -1, *(1,) * (self.target.ndim - 1))


def class_batch(
    logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor | None
) -> ClassBatch:
    """Check a loss's arguments and bring them to one form.

    One output channel z with a sigmoid is two classes with the logits 0 and z and a softmax:
    probabilities, losses and gradients are the same.

    Args:
        logits: (B, K, *spatial), any floating type.
        target: (B, *spatial) whole numbers: 0 and 1 for K = 1, else 0 to K - 1.
        annotated: (B, K) boolean, False where the sample does not annotate the class; None where
            all is annotated.

    Raises:
        GeometryError: Shapes that do not fit one another, or nothing in the batch.
        RecipeError: A target that is no whole number or no class of the network.
    """
    check_arguments(logits, target, annotated)
    scores = logits if logits.dtype == torch.float64 else logits.float()
    if scores.shape[1] == 1:
        scores = torch.cat((torch.zeros_like(scores), scores), dim=1)
        annotated = None if annotated is None else annotated.expand(-1, 2)
    return ClassBatch(hide_unannotated(scores, annotated), target.long(), annotated)


def check_arguments(
    logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor | None
) -> None:
    """Refuse what no loss can compare; see `class_batch`."""
    if logits.ndim < 3 or not logits.numel():
        msg = f"logits have shape {tuple(logits.shape)} but must be (batch, class, *space)"
        raise GeometryError(msg)
    if target.shape != (len(logits), *logits.shape[2:]):
        expected = (len(logits), *logits.shape[2:])
        msg = (
            f"the target has shape {tuple(target.shape)} but the logits of shape "
            f"{tuple(logits.shape)} need {expected}"
        )
        raise GeometryError(msg)
    if annotated is not None and annotated.shape != logits.shape[:2]:
        msg = (
            f"annotated has shape {tuple(annotated.shape)} but the logits need one entry for "
            f"each sample and class, {tuple(logits.shape[:2])}"
        )
        raise GeometryError(msg)
    if annotated is not None and annotated.dtype != torch.bool:
        msg = f"annotated has type {annotated.dtype} but must be boolean"
        raise RecipeError(msg)
    if target.is_floating_point() or target.is_complex():
        msg = f"the target has type {target.dtype} but must hold classes as whole numbers"
        raise RecipeError(msg)
    lowest, highest = (int(value) for value in target.to(torch.int64).aminmax())
    last = max(2, logits.shape[1]) - 1
    if lowest < 0 or highest > last:
        wrong = lowest if lowest < 0 else highest
        msg = f"the target holds class {wrong} but the network's classes are 0 to {last}"
        raise RecipeError(msg)


def hide_unannotated(scores: torch.Tensor, annotated: torch.Tensor | None) -> torch.Tensor:
    """Scores (B, K, *spatial) with -inf for the foreground classes that a sample leaves out."""
    if annotated is None:
        return scores
    left_out = ~annotated
    left_out = torch.cat((torch.zeros_like(left_out[:, :1]), left_out[:, 1:]), dim=1)
    spatial = (1,) * (scores.ndim - 2)
    hidden = left_out.view(*left_out.shape, *spatial)
    return scores.masked_fill(hidden, float("-inf"))


def without_doubtful_background(annotated: torch.Tensor) -> torch.Tensor:
    """Background counts only in samples whose every class is annotated: (B, K)."""
    return torch.cat((annotated.all(dim=1, keepdim=True), annotated[:, 1:]), dim=1)


def mean_of_annotated(values: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """Mean of the values that count, a scalar; zero, with zero gradient, where none does.

    Args:
        values: Any shape, finite.
        counted: Boolean, same shape; None counts all.
    """
    if counted is None:
        return values.mean()
    return (values * counted).sum() / counted.sum().clamp(min=1)


class ClassSums(NamedTuple):
    """Sums over the batch and space, each (K,).

    Attributes:
        overlap: Of probability times truth.
        squares: Of the squared probability.
        truth: Of the truth, a number of voxels.
        counted: Whether some sample of the batch annotates the class.
    """

    overlap: torch.Tensor
    squares: torch.Tensor
    truth: torch.Tensor
    counted: torch.Tensor


def class_sums(batch: ClassBatch) -> ClassSums:
    """Sums for the overlap measures with squares (Tanimoto, hinge Dice), class by class."""
    probabilities, truth = batch.scores.softmax(dim=1), batch.one_hot
    per_sample = [
        (probabilities * truth).flatten(2).sum(dim=2),
        probabilities.square().flatten(2).sum(dim=2),
        truth.flatten(2).sum(dim=2).to(probabilities.dtype),
    ]
    counted = torch.ones_like(per_sample[0][0], dtype=torch.bool)
    if batch.annotated is not None:
        annotated = without_doubtful_background(batch.annotated)
        per_sample = [sums * annotated for sums in per_sample]
        counted = annotated.any(dim=0)
    overlap, squares, truth_sum = (sums.sum(dim=0) for sums in per_sample)
    return ClassSums(overlap, squares, truth_sum, counted)


def check_positive(name: str, value: float) -> None:
    """Refuse an option that is no positive number.

    Raises:
        RecipeError: Naming the option and the value.
    """
    allowed = isinstance(value, int | float) and not isinstance(value, bool)
    if not allowed or not 0 < value < float("inf"):
        msg = f"{name} is {value!r} but must be a positive number"
        raise RecipeError(msg)


def check_share(name: str, value: float) -> None:
    """Refuse an option that is no finite number of at least 0.

    Raises:
        RecipeError: Naming the option and the value.
    """
    allowed = isinstance(value, int | float) and not isinstance(value, bool)
    if not allowed or not 0 <= value < float("inf"):
        msg = f"{name} is {value!r} but must be a number of at least 0"
        raise RecipeError(msg)
