"""Looks at the monitor cases, against sums over what counts."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.frames import CachedSource, PreparedCase
from leanseg.training.monitor import look
from leanseg.volumes import Box
from plans import slices

SHAPE = (7, 5, 6)  # k, i, j


class _Pipeline:
    """Says of every voxel what it was given: probabilities (k, class, i, j)."""

    plan = slices((5, 6), ("organ", "tumour"))

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def predict_source(self, source, add):
        for start in range(0, len(self.probabilities), 3):
            add(start, self.probabilities[start : start + 3])
        return np.moveaxis(self.probabilities.argmax(axis=1).astype(np.uint8), 0, 2)


def test_ignored_voxels_count_neither_in_the_loss_nor_in_the_dice(rng):
    probabilities = rng.dirichlet((1, 1, 1), SHAPE).transpose(0, 3, 1, 2).astype(np.float32)
    classes = rng.integers(0, 4, SHAPE).astype(np.uint8)
    source = CachedSource(np.zeros((7, 1, 5, 6), np.float32), Box((0, 0, 0), (5, 6, 7)))
    case = PreparedCase("a", source, classes, classes, ignored=3)
    scores = look(_Pipeline(probabilities), [case])
    counted = classes != 3
    kept = probabilities.transpose(0, 2, 3, 1)[counted]
    truth, predicted = classes[counted], kept.argmax(axis=1)
    losses, dice = [], []
    for value in (1, 2):
        p, y = kept[:, value].astype(float), truth == value
        losses.append(1 - (2 * p[y].sum() + 1) / (p.sum() + y.sum() + 1))
        both, total = ((predicted == value) & y).sum(), (predicted == value).sum() + y.sum()
        dice.append(2 * both / total)
    assert scores.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert list(scores.dice_per_label.values()) == pytest.approx(dice)
    assert scores.dice == pytest.approx(np.mean(dice))
