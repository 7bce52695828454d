"""Looks at the monitor cases, whole, through the pipeline that will run at the hospital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leanseg.evaluation import dice_per_label
from leanseg.frames import PreparedCase
from leanseg.frames.classes import where_any
from leanseg.inference import Pipeline
from leanseg.plan import Stage
from leanseg.training import ranks
from leanseg.training.tasks.base import Term
from leanseg.training.tasks.segmentation import compare

_SMOOTH = 1.0
# Probabilities nearer to 0 and 1 than this have no logit in 32 bits.
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class Scores:
    """Scores of one look at the monitor cases.

    Attributes:
        loss: Mean over cases of the loss of the whole scan in network resolution, like all that
            follows without voxels that the reference ignores: the soft Dice loss, or the phase's.
        dice: Mean over cases and labels of the Dice in the scans' own resolution; 0 where no
            case has any label.
        dice_per_label: Mean over the cases that annotate the label and in which it is defined,
            by label name; None where there is no such case.
    """

    loss: float
    dice: float
    dice_per_label: dict[str, float | None]


def look(pipeline: Pipeline, cases: Sequence[PreparedCase], terms: Sequence[Term] = ()) -> Scores:
    """Run whole cases through the pipeline and score them; processes that train together share.

    Args:
        pipeline: Around the network in training.
        cases: Whole scans from the cache.
        terms: Of the loss that is wanted; none for the soft Dice loss, which needs no
            probabilities of a whole scan at once.

    Returns:
        The scores.
    """
    names = pipeline.plan.labels
    score = partial(_score_by, terms) if terms else _score
    own = [(n, score(pipeline, cases[n])) for n in ranks.share(range(len(cases)))]
    # In the order of the cases, whoever scored them: sums depend on it.
    scored = dict(pair for part in ranks.gathered_objects(own) for pair in part)
    losses, dice = zip(*(scored[number] for number in range(len(cases))), strict=True)
    per_label: dict[str, float | None] = {}
    for name, values in zip(names, np.stack(dice).T, strict=True):
        defined = values[np.isfinite(values)]
        per_label[name] = float(defined.mean()) if defined.size else None
    known = [value for value in per_label.values() if value is not None]
    return Scores(
        loss=float(np.mean(losses)),
        dice=float(np.mean(known)) if known else 0.0,
        dice_per_label=per_label,
    )


def _score(pipeline: Pipeline, case: PreparedCase) -> tuple[float, np.ndarray]:
    stage = pipeline.plan.final
    n_labels, members = len(stage.labels), list(stage.label_values.values())
    intersection = np.zeros(n_labels)
    total = np.zeros(n_labels)

    def add(start: int, probabilities: NDArray[np.float32]) -> None:
        reference = case.classes[start : start + len(probabilities)]
        foreground = probabilities[:, stage.n_outputs - n_labels :]
        if case.ignored is not None:
            foreground = foreground * (reference != case.ignored)[:, None]
        for index in range(n_labels):
            mask = where_any(reference, members[index])
            probability = foreground[:, index]
            intersection[index] += float(probability[mask].sum(dtype=np.float64))
            total[index] += float(probability.sum(dtype=np.float64)) + float(mask.sum())

    predicted = pipeline.predict_source(case.source, add)
    per_label = 1 - (2 * intersection + _SMOOTH) / (total + _SMOOTH)
    # What the case does not annotate says nothing about the network.
    return float(per_label[known_labels(case, stage)].mean()), case_dice(predicted, case, stage)


def _score_by(
    terms: Sequence[Term], pipeline: Pipeline, case: PreparedCase
) -> tuple[float, np.ndarray]:
    """The same with the loss of a phase."""
    stage = pipeline.plan.final
    i, j, k = case.source.shape
    planes = np.empty((k, stage.n_outputs, i, j), dtype=np.float32)

    def keep(start: int, probabilities: NDArray[np.float32]) -> None:
        planes[start : start + len(probabilities)] = probabilities

    predicted = pipeline.predict_source(case.source, keep)
    return whole_case_loss(planes, case, terms, stage), case_dice(predicted, case, stage)


@torch.inference_mode()
def whole_case_loss(
    planes: NDArray[np.float32], case: PreparedCase, terms: Sequence[Term], stage: Stage
) -> float:
    """A loss of a whole case, as if the network had seen it as one sample, or a batch of slices.

    Args:
        planes: Probabilities (k, output, i, j) in the stage's frame.
        case: The case.
        terms: Of the loss; with weights for several maps, all count for the one that there is.
        stage: What the outputs stand for.
    """
    found = torch.from_numpy(planes).clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    # A softmax of logarithms gives back the probabilities.
    logits = found.logit() if stage.is_sigmoid else found.log()
    target = torch.from_numpy(case.targets(case.classes))
    if stage.is_3d:
        logits, target = logits.permute(1, 2, 3, 0)[None], target.permute(1, 2, 0)[None]
    known = None if case.annotated is None else torch.tensor([case.annotated] * len(logits))
    return sum(
        term.weight
        * sum(term.outputs or (1,))
        * float(compare(term.loss, logits, target, known, stage))
        for term in terms
    )


def known_labels(case: PreparedCase, stage: Stage) -> NDArray[np.bool_]:
    """Which of a stage's labels a case annotates, (label,)."""
    return np.ones(len(stage.labels), bool) if case.annotated is None else np.array(case.annotated)


def case_dice(predicted: NDArray[Any], case: PreparedCase, stage: Stage) -> NDArray[np.float64]:
    """Dice of a label map, in the scan's own resolution, without voxels that are ignored.

    Args:
        predicted: Classes (i, j, k) of the whole case, in the frame's orientation.
        case: The case.
        stage: Whose labels they are; regions are scored with all that is inside them.

    Returns:
        Shape (label,): NaN where neither map has the label, or the case does not annotate it.
    """
    members = list(stage.label_values.values())
    found, reference = np.moveaxis(predicted, 2, 0), case.own_classes
    if stage.is_regions:
        if case.ignored is not None:
            # What is not known is in no region.
            found = np.where(reference == case.ignored, 0, found)
        masks = ((where_any(found, own), where_any(reference, own)) for own in members)
        dice = np.array([dice_per_label(mine, theirs, 1)[0] for mine, theirs in masks])
    else:
        dice = dice_per_label(found, reference, len(members), ignored=case.ignored)
    return np.where(known_labels(case, stage), dice, np.nan)
