from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import certain, draw
from scipy.special import log_softmax

from leanseg.losses import build_loss


def by_formula(logits, target, smooth=1e-5, first=0):
    """Equation 1 of paper 002 and cross-entropy in numpy."""
    logits = np.moveaxis(logits.double().numpy(), 1, -1).reshape(-1, logits.shape[1])
    truth = np.eye(logits.shape[1])[target.numpy().ravel()]
    logarithms = log_softmax(logits, axis=1)
    p = np.exp(logarithms)
    dot = (p * truth).sum(0)
    tanimoto = 1 - (dot + smooth) / ((p**2).sum(0) + (truth**2).sum(0) - dot + smooth)
    return tanimoto[first:].mean(), -(logarithms * truth).sum(1).mean()


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("background", [False, True])
def test_equals_the_formula(spatial, background):
    logits, target = draw(0, 3, 4, *spatial)
    tanimoto, entropy = by_formula(logits, target, first=0 if background else 1)
    loss = build_loss("tanimoto-cross-entropy", include_background=background)
    assert loss(logits, target).item() == pytest.approx(0.6 * tanimoto + 0.4 * entropy, rel=1e-5)
    for weights, expected in (((1, 0), tanimoto), ((0, 1), entropy)):
        alone = build_loss(
            "tanimoto-cross-entropy",
            tanimoto_weight=weights[0],
            cross_entropy_weight=weights[1],
            include_background=background,
        )
        assert alone(logits, target).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 4))
def test_certain_predictions_give_the_hard_count(seed, classes):
    _, truth = draw(seed, 2, classes, 4, 3)
    _, predicted = draw(seed + 1, 2, classes, 4, 3)
    a, b = truth.numpy(), predicted.numpy()
    shares = []
    for value in range(classes):
        common = np.count_nonzero((a == value) & (b == value))
        either = np.count_nonzero((a == value) | (b == value))
        shares.append(1 - (common + 1e-5) / (either + 1e-5))
    loss = build_loss("tanimoto-cross-entropy", cross_entropy_weight=0, tanimoto_weight=1)
    value = loss(certain(predicted, classes), truth).item()
    assert value == pytest.approx(np.mean(shares), abs=1e-6)
    # On class maps it is the Jaccard distance, which does not know which map is the reference.
    assert loss(certain(truth, classes), predicted).item() == pytest.approx(value, abs=1e-6)


def test_absent_class():
    target = torch.zeros(1, 2, 5, dtype=torch.long)
    loss = build_loss("tanimoto-cross-entropy", tanimoto_weight=1, cross_entropy_weight=0)
    # Class 1 predicted nowhere: nothing; predicted once: the whole error of that class.
    assert loss(certain(target, 2), target).item() == pytest.approx(0, abs=1e-6)
    once = target.clone()
    once[0, 0, 0] = 1
    assert loss(certain(once, 2), target).item() == pytest.approx((1 / 10 + 1) / 2, abs=1e-5)


def test_class_that_nobody_annotates_leaves_the_mean():
    logits, target = draw(1, 2, 3, 4, 4)
    target = torch.where(target == 2, 0, target)
    annotated = torch.tensor([[True, True, False]] * 2)
    loss = build_loss("tanimoto-cross-entropy", include_background=False)
    torch.testing.assert_close(loss(logits, target, annotated), loss(logits[:, :2], target))
