"""Validation by whole cases, through the predictor that will run at the hospital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leanseg.evaluation import dice_per_label
from leanseg.inference import Predictor
from leanseg.inference.postprocessing import postprocess
from leanseg.preprocessing import WholeCase

_SMOOTH = 1.0


@dataclass(frozen=True)
class ValidationScores:
    """Scores of one validation.

    Attributes:
        loss: Mean over cases of the soft Dice loss of the whole scan in network resolution.
        dice: Mean over cases and labels of the Dice in the scans' own resolution; 0 where no
            case has any label.
        dice_per_label: Mean over the cases that annotate the label and in which it is defined,
            by label name; None where there is no such case.
    """

    loss: float
    dice: float
    dice_per_label: dict[str, float | None]


def validate(predictor: Predictor, cases: Sequence[WholeCase]) -> ValidationScores:
    """Run whole cases through the predictor and score them.

    Args:
        predictor: Around the network in training.
        cases: Whole scans from the cache.

    Returns:
        The scores.
    """
    names = predictor.plan.labels
    losses: list[float] = []
    rows: list[np.ndarray] = []
    for case in cases:
        loss, dice = _score(predictor, case, len(names))
        losses.append(loss)
        rows.append(dice)
    table = np.stack(rows)
    per_label: dict[str, float | None] = {}
    for index, name in enumerate(names):
        defined = table[:, index][np.isfinite(table[:, index])]
        per_label[name] = float(defined.mean()) if defined.size else None
    known = [value for value in per_label.values() if value is not None]
    return ValidationScores(
        loss=float(np.mean(losses)),
        dice=float(np.mean(known)) if known else 0.0,
        dice_per_label=per_label,
    )


def _score(predictor: Predictor, case: WholeCase, n_labels: int) -> tuple[float, np.ndarray]:
    intersection = np.zeros(n_labels)
    total = np.zeros(n_labels)
    predicted = np.empty(case.own_classes.shape, dtype=case.own_classes.dtype)
    for start, probabilities in predictor.probabilities(case):
        stop = start + len(probabilities)
        reference = case.classes[start:stop]
        foreground = probabilities if probabilities.shape[1] == 1 else probabilities[:, 1:]
        for index in range(n_labels):
            mask = reference == index + 1
            probability = foreground[:, index]
            intersection[index] += float(probability[mask].sum(dtype=np.float64))
            total[index] += float(probability.sum(dtype=np.float64)) + float(mask.sum())
        predicted[start:stop] = predictor.decide(probabilities, case.in_plane_shape)
    known = np.ones(n_labels, bool) if case.annotated is None else np.array(case.annotated)
    per_label = 1 - (2 * intersection + _SMOOTH) / (total + _SMOOTH)
    predicted = postprocess(predicted, predictor.plan)
    dice = dice_per_label(predicted, case.own_classes, n_labels)
    # What the case does not annotate says nothing about the network.
    return float(per_label[known].mean()), np.where(known, dice, np.nan)
