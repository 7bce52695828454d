"""Segmentation: every voxel of a patch is compared with its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.losses.base import SegmentationLoss
from leanseg.losses.regions import region_loss
from leanseg.networks.base import SegmentationNetwork
from leanseg.plan import Stage
from leanseg.training.joint import joint
from leanseg.training.tasks.base import Batch, Task, Term, whole_terms


class Segmentation(Task):
    """Logits of a batch against its classes, by a sum of losses.

    Args:
        stage: Whose labels are learned.
        terms: Of the loss. Those with weights for several outputs see all maps of the network
            (`all_maps`): deep supervision.
    """

    methods: ClassVar[Sequence[str]] = ("all_maps",)

    def __init__(self, stage: Stage, terms: Sequence[Term]) -> None:
        self._stage, self._terms = stage, whole_terms(terms, "segmentation")

    def require(self, network: SegmentationNetwork) -> None:
        """Refuse a network that has not the outputs which the loss weighs.

        Raises:
            RecipeError: With the numbers.
        """
        there = network.n_maps
        for term in self._terms:
            if term.outputs is not None and len(term.outputs) != there:
                raise RecipeError(
                    f"a loss has weights for {len(term.outputs)} outputs, but the network has "
                    f"{there}; give 'outputs' as many, coarse to fine, or leave it out for the last"
                )

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        target, annotated = joint(batch.classes), batch.annotated
        known = None if annotated is None else joint(annotated)
        total = torch.zeros((), device=target.device)
        for logits, terms in self._outputs(network, batch.image):
            joined = joint(logits)
            for term, weight in terms:
                total = total + weight * compare(term.loss, joined, target, known, self._stage)
        return total

    def _outputs(
        self, network: nn.Module, image: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, list[tuple[Term, float]]]]:
        """Logits, and the terms that they are in with their weights."""
        # What the network answers with may be none of its maps: U-Net++ takes their mean.
        of_answer = [(term, term.weight) for term in self._terms if term.outputs is None]
        of_maps = [term for term in self._terms if term.outputs is not None]
        if of_answer:
            yield network(image), of_answer
        if of_maps:
            found: Any = network.all_maps
            for number, logits in enumerate(found(image)):
                weights = ((t, t.weight * (t.outputs or ())[number]) for t in of_maps)
                yield logits, [(term, weight) for term, weight in weights if weight]


def compare(
    loss: SegmentationLoss,
    logits: torch.Tensor,
    target: torch.Tensor,
    known: torch.Tensor | None,
    stage: Stage,
) -> torch.Tensor:
    """One loss of logits against classes.

    Args:
        loss: The loss.
        logits: (B, output, *spatial).
        target: (B, *spatial) classes, -1 ignored.
        known: (B, label) whether a sample annotates a label; None for all.
        stage: What the outputs stand for.
    """
    if stage.is_regions:
        return region_loss(loss, logits, target, list(stage.label_values.values()), known)
    # Only where something is unannotated does the loss have to know of it.
    if known is not None and logits.shape[1] > 1:
        known = torch.cat((torch.ones_like(known[:, :1]), known), dim=1)
    value: torch.Tensor = loss(logits, target) if known is None else loss(logits, target, known)
    return value
