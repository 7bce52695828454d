"""What tasks share: batches, and terms of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.losses.base import SegmentationLoss
from leanseg.networks.base import SegmentationNetwork


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch.

    Attributes:
        image: (batch, channel, *spatial) float32.
        classes: (batch, *spatial) int32: 0 background, n + 1 for label n, -1 ignored.
        seeds: One a sample.
        annotated: (batch, label) boolean, False where a sample's case does not annotate a label;
            None where all is annotated.
    """

    image: torch.Tensor
    classes: torch.Tensor
    seeds: tuple[int, ...]
    annotated: torch.Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One term of a loss.

    Attributes:
        loss: Of logits against classes.
        weight: In the sum.
        outputs: Weights of the network's maps, coarse to fine; None for the last map alone.
        part: Of which part of the answer, where a task has several.
    """

    loss: SegmentationLoss
    weight: float = 1.0
    outputs: tuple[float, ...] | None = None
    part: str | None = None


class Task(Protocol):
    """What a step means.

    A factory takes `stage` and `terms`, then its own options.

    Attributes:
        methods: Of the network, besides `forward`, that it calls; `require` sees to it that the
            network has them.
    """

    methods: ClassVar[Sequence[str]]

    def require(self, network: SegmentationNetwork) -> None:
        """Refuse a network that is not for it.

        Raises:
            RecipeError: Naming what it lacks.
        """

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch that was augmented, a scalar, of all processes together."""

    def told(self) -> str:
        """What the user should know of the epoch that ends, which is then forgotten; or ""."""
        return ""


def whole_terms(terms: Sequence[Term], task: str) -> Sequence[Term]:
    """The terms, of a task whose answer has no parts.

    Raises:
        RecipeError: If one is of a part.
    """
    if any(term.part is not None for term in terms):
        msg = f"task {task!r} has one answer; leave 'part' out of its losses"
        raise RecipeError(msg)
    return terms
