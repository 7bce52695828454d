"""What the losses share: their arguments, and the classes that a sample annotates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from leanseg.errors import GeometryError, RecipeError

# In a target: a voxel of which nothing is known.
IGNORED: Final = -1


class SegmentationLoss(nn.Module, ABC):
    """A loss of logits against a class map; its own class says what `of` makes of a batch.

    One output channel is read through a sigmoid and counts as two classes, more through a
    softmax. Losses are computed in float32 (float64 for float64 logits), also under autocast.

    A class that a sample does not annotate is unknown there, not absent: its voxels hold the
    background value. It leaves the sample's softmax, so that its logit has no gradient, and its
    own term. A voxel labelled background in such a sample may hide it. What stays certain of
    that voxel is that it is none of the annotated classes, and this alone the softmax over the
    annotated classes says; a term of the background itself leaves.

    An ignored voxel is in no sum, mean or count, and its logits have no gradient: the loss is
    that of the other voxels. Where place counts it is as if it lay outside the image.
    """

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of a batch.

        Args:
            logits: (B, K, *spatial), any floating type.
            target: (B, *spatial) whole numbers: 0 and 1 for K = 1, else 0 to K - 1; `IGNORED`
                for voxels that do not count.
            annotated: (B, K) boolean, False where the sample does not annotate the class;
                None where all is annotated.

        Returns:
            A scalar of at least 0, zero where nothing is annotated or all is ignored.

        Raises:
            GeometryError: Shapes that do not fit one another, or nothing in the batch.
            RecipeError: Targets that are no class, or classes that the loss cannot do with.
        """
        lowest = check_arguments(logits, target, annotated)
        scores = logits if logits.dtype == torch.float64 else logits.float()
        ignored = None
        if lowest == IGNORED:
            ignored = target == IGNORED
            scores = scores.masked_fill(ignored.unsqueeze(1), 0)
        is_sigmoid = scores.shape[1] == 1
        if is_sigmoid:
            # Probabilities, losses and gradients of the logits 0 and z under a softmax are those
            # of z under a sigmoid.
            scores = torch.cat((torch.zeros_like(scores), scores), dim=1)
            annotated = None if annotated is None else annotated.expand(-1, 2)
        scores = _hidden(scores, annotated)
        return self.of(Batch(scores, target.long(), annotated, is_sigmoid, ignored))

    @property
    def wants_counts(self) -> bool:
        """Whether it has to be told of the training set, by `count`, before training."""
        return False

    def count(self, voxels: torch.Tensor) -> None:
        """Take note of the voxels of each class (K,) in the training set, background first."""

    @abstractmethod
    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""


@dataclass(frozen=True)
class Batch:
    """Checked arguments of a loss, as two classes or more.

    Attributes:
        scores: Logits (B, K, *spatial) with K of at least 2, float32 or float64, -inf where the
            sample does not annotate the class.
        target: Classes (B, *spatial), int64, `IGNORED` where the voxel does not count.
        annotated: (B, K) boolean, or None where all is annotated.
        is_sigmoid: Whether the network has one output channel.
        ignored: Which voxels do not count, boolean (B, *spatial), or None where all do.
    """

    scores: torch.Tensor
    target: torch.Tensor
    annotated: torch.Tensor | None
    is_sigmoid: bool
    ignored: torch.Tensor | None = None

    @property
    def probabilities(self) -> torch.Tensor:
        """Softmax of the scores (B, K, *spatial), 0 where the voxel is ignored."""
        return self.where_counted(self.scores.softmax(dim=1))

    @property
    def one_hot(self) -> torch.Tensor:
        """The classes as booleans (B, K, *spatial), all False where the voxel is ignored."""
        values = torch.arange(self.scores.shape[1], device=self.target.device)
        return self.target.unsqueeze(1) == values.view(1, -1, *(1,) * (self.target.ndim - 1))

    @property
    def certain(self) -> torch.Tensor:
        """Which terms count, boolean (B, K): the background's only where all is annotated."""
        if self.annotated is None:
            return torch.ones(self.scores.shape[:2], dtype=torch.bool, device=self.scores.device)
        return torch.cat((self.annotated.all(dim=1, keepdim=True), self.annotated[:, 1:]), dim=1)

    @property
    def seen(self) -> torch.Tensor | None:
        """Which samples have a voxel that counts, boolean (B,); None where no voxel is ignored."""
        return None if self.ignored is None else ~self.ignored.flatten(1).all(dim=1)

    def where_counted(self, values: torch.Tensor) -> torch.Tensor:
        """Values (B, C, *spatial), 0 where the voxel is ignored."""
        return values if self.ignored is None else values.masked_fill(self.ignored.unsqueeze(1), 0)

    def class_sums(self, *values: torch.Tensor, first: int = 0) -> list[torch.Tensor]:
        """Sums over the batch of what counts, (K - first,) each.

        Args:
            *values: Sums over the space of each sample, (B, K - first).
            first: The first class of them.
        """
        if self.annotated is not None:
            certain = self.certain[:, first:]
            values = tuple(each * certain for each in values)
        return [each.sum(dim=0) for each in values]


def space_sum(values: torch.Tensor) -> torch.Tensor:
    """(B, K, *spatial) to (B, K)."""
    return values.flatten(2).sum(dim=2)


def mean_where(values: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """Mean of the values that count, a scalar; zero, with zero gradient, where none does.

    Args:
        values: Any shape, finite.
        counted: Boolean, same shape; None counts all.
    """
    if counted is None:
        return values.mean()
    return (values * counted).sum() / counted.sum().clamp(min=1)


def both(first: torch.Tensor | None, second: torch.Tensor | None) -> torch.Tensor | None:
    """Where two booleans of fitting shapes hold; None stands for everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def check_arguments(
    logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor | None
) -> int:
    """Refuse what no loss can compare; see `SegmentationLoss.forward`.

    Returns:
        The lowest value of the target.
    """
    if logits.ndim < 3 or not logits.numel():
        msg = f"logits have shape {tuple(logits.shape)} but must be (batch, class, *space)"
        raise GeometryError(msg)
    if target.shape != (len(logits), *logits.shape[2:]):
        expected = (len(logits), *logits.shape[2:])
        raise GeometryError(
            f"the target has shape {tuple(target.shape)} but the logits of shape "
            f"{tuple(logits.shape)} need {expected}"
        )
    if annotated is not None and annotated.shape != logits.shape[:2]:
        raise GeometryError(
            f"annotated has shape {tuple(annotated.shape)} but the logits need one entry for "
            f"each sample and class, {tuple(logits.shape[:2])}"
        )
    if annotated is not None and annotated.dtype != torch.bool:
        raise RecipeError(f"annotated has type {annotated.dtype} but must be boolean")
    if target.is_floating_point() or target.is_complex():
        msg = f"the target has type {target.dtype} but must hold classes as whole numbers"
        raise RecipeError(msg)
    lowest, highest = (int(value) for value in target.to(torch.int64).aminmax())
    last = max(2, logits.shape[1]) - 1
    if lowest < IGNORED or highest > last:
        wrong = lowest if lowest < IGNORED else highest
        raise RecipeError(
            f"the target holds class {wrong} but the network's classes are 0 to {last}, and "
            f"{IGNORED} for ignored voxels"
        )
    return lowest


def _hidden(scores: torch.Tensor, annotated: torch.Tensor | None) -> torch.Tensor:
    """Scores (B, K, *spatial) with -inf for the foreground classes that a sample leaves out."""
    if annotated is None:
        return scores
    left_out = ~annotated
    left_out = torch.cat((torch.zeros_like(left_out[:, :1]), left_out[:, 1:]), dim=1)
    return scores.masked_fill(left_out.view(*left_out.shape, *(1,) * (scores.ndim - 2)), -torch.inf)
