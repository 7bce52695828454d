"""Looks at the monitor cases, whole, through the pipeline that will run at the hospital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.evaluation import dice_per_label
from leanseg.frames import PreparedCase
from leanseg.frames.classes import where_any
from leanseg.inference import Pipeline
from leanseg.plan import Stage
from leanseg.training import ranks

_SMOOTH = 1.0


@dataclass(frozen=True)
class Scores:
    """Scores of one look at the monitor cases.

    Attributes:
        loss: Mean over cases of the soft Dice loss of the whole scan in network resolution,
            like all that follows without voxels that the reference ignores.
        dice: Mean over cases and labels of the Dice in the scans' own resolution; 0 where no
            case has any label.
        dice_per_label: Mean over the cases that annotate the label and in which it is defined,
            by label name; None where there is no such case.
    """

    loss: float
    dice: float
    dice_per_label: dict[str, float | None]


def look(pipeline: Pipeline, cases: Sequence[PreparedCase]) -> Scores:
    """Run whole cases through the pipeline and score them; processes that train together share.

    Args:
        pipeline: Around the network in training.
        cases: Whole scans from the cache.

    Returns:
        The scores.
    """
    names = pipeline.plan.labels
    own = [(n, _score(pipeline, cases[n])) for n in ranks.share(range(len(cases)))]
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
