from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import certain, draw
from scipy.special import softmax

from leanseg.losses import build_loss


def hinge(dice):
    low = np.minimum(dice, 0.1) * 10 - 1
    lower = np.minimum(dice, 0.01) * 100 - 1
    return 1 - dice + 10 * low**2 + 10 * lower**2


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("reluctance", [0.0, 3.0, 8.0])
def test_equals_the_formula(spatial, reluctance):
    logits, target = draw(0, 3, 4, *spatial)
    logits[:, 0] += reluctance  # misses the foreground: Dice near 0.5, below 0.1, below 0.01
    p = softmax(np.moveaxis(logits.double().numpy(), 1, -1).reshape(-1, 4), axis=1)
    truth = np.eye(4)[target.numpy().ravel()]
    dice = 2 * (p * truth).sum(0) / ((p**2).sum(0) + truth.sum(0) + 1e-5)
    if reluctance:
        assert dice[1:].max() < (0.01 if reluctance > 5 else 0.2)
    expected = hinge(dice).mean()
    assert build_loss("hinge-dice")(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reluctance", [3.0, 6.0, 8.0])
def test_gradient_of_the_hinges_equals_finite_differences(reluctance):
    logits, target = draw(1, 2, 3, 3, 4, dtype=torch.float64)
    logits[:, 0] += reluctance
    loss = build_loss("hinge-dice")
    assert torch.autograd.gradcheck(lambda values: loss(values, target), logits.requires_grad_())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 4))
def test_certain_predictions_give_the_hard_count(seed, classes):
    _, truth = draw(seed, 2, classes, 4, 3)
    _, predicted = draw(seed + 1, 2, classes, 4, 3)
    a, b = truth.numpy(), predicted.numpy()
    values = []
    for value in set(a.ravel()):
        sizes = np.count_nonzero(a == value) + np.count_nonzero(b == value)
        values.append(hinge(2 * np.count_nonzero((a == value) & (b == value)) / (sizes + 1e-5)))
    loss = build_loss("hinge-dice")(certain(predicted, classes), truth).item()
    assert loss == pytest.approx(np.mean(values), rel=1e-5, abs=1e-6)


def test_without_hinges_it_is_dice_with_squares():
    logits, target = draw(2, 2, 3, 4, 4)
    plain = build_loss("hinge-dice", hinge_weight=0)(logits, target)
    hinged = build_loss("hinge-dice")(logits, target)
    torch.testing.assert_close(plain, hinged)  # every Dice is above 0.1
    logits[:, 0] += 6
    assert build_loss("hinge-dice")(logits, target) > build_loss("hinge-dice", hinge_weight=0)(
        logits, target
    )
