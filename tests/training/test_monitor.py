"""Looks at the monitor cases, against sums over what counts."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.frames import CachedSource, PreparedCase
from leanseg.losses import build_loss
from leanseg.training.monitor import look
from leanseg.training.tasks.base import Term
from leanseg.volumes import Box
from plans import patches, slices

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


@pytest.mark.parametrize("plan", [slices((5, 6), 2), patches((5, 6, 7), 2)], ids=["2-D", "3-D"])
def test_the_loss_of_a_phase_by_its_definition(rng, plan):
    """Paper 002: 0.6 Tanimoto + 0.4 cross-entropy, over the whole case."""
    probabilities = rng.dirichlet((1, 1, 1), SHAPE).transpose(0, 3, 1, 2).astype(np.float32)
    probabilities[0, :, 0, 0] = 1, 0, 0
    classes = rng.integers(0, 4, SHAPE).astype(np.uint8)
    classes[0, 0, 0] = 0
    source = CachedSource(np.zeros((7, 1, 5, 6), np.float32), Box((0, 0, 0), (5, 6, 7)))
    case = PreparedCase("a", source, classes, classes, ignored=3)
    pipeline = _Pipeline(probabilities)
    pipeline.plan = plan
    term = Term(build_loss("tanimoto-cross-entropy"), 2.0)
    found = look(pipeline, [case], [term])
    kept = probabilities.transpose(0, 2, 3, 1)[classes != 3].astype(float)
    y = np.eye(3)[classes[classes != 3]]
    overlap = (kept * y).sum(axis=0)
    tanimoto = 1 - overlap / ((kept**2).sum(axis=0) + y.sum(axis=0) - overlap)
    cross_entropy = -np.log((kept * y).sum(axis=1))
    expected = 0.6 * tanimoto.mean() + 0.4 * cross_entropy.mean()
    assert found.loss == pytest.approx(2 * expected, rel=1e-4)
    assert found.dice == look(pipeline, [case]).dice


def test_the_loss_of_a_phase_with_one_label_and_several_maps(rng):
    probabilities = rng.uniform(0.01, 0.99, (7, 1, 5, 6)).astype(np.float32)
    classes = rng.integers(0, 2, SHAPE).astype(np.uint8)
    source = CachedSource(np.zeros((7, 1, 5, 6), np.float32), Box((0, 0, 0), (5, 6, 7)))
    pipeline = _Pipeline(probabilities)
    pipeline.plan = slices((5, 6), 1)
    # Coarse and fine weigh 1 together: the one map that there is counts as all.
    term = Term(build_loss("cross-entropy"), 1.0, (0.25, 0.75))
    found = look(pipeline, [PreparedCase("a", source, classes, classes)], [term])
    of_truth = np.where(classes == 1, probabilities[:, 0], 1 - probabilities[:, 0])
    assert found.loss == pytest.approx(-np.log(of_truth).mean(), rel=1e-4)
