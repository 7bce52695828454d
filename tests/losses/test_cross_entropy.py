from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import certain, draw
from torch.nn import functional

from leanseg.errors import RecipeError
from leanseg.losses import build_loss
from leanseg.losses.base import IGNORED
from leanseg.losses.cross_entropy import square_root_inverse_frequency


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 0.0]])
def test_equals_torch(spatial, weights):
    logits, target = draw(0, 3, 4, *spatial)
    loss = build_loss("cross-entropy", class_weights=weights or "equal")
    expected = functional.cross_entropy(
        logits, target, weight=None if weights is None else torch.tensor(weights)
    )
    torch.testing.assert_close(loss(logits, target), expected)


def test_one_channel_equals_torch_binary():
    logits, target = draw(1, 3, 1, 5, 6)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())
    torch.testing.assert_close(build_loss("cross-entropy")(logits, target), expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 5))
def test_certain_predictions_give_the_hard_count(seed, classes):
    _, truth = draw(seed, 2, classes, 4, 3)
    _, predicted = draw(seed + 1, 2, classes, 4, 3)
    wrong = np.count_nonzero(truth.numpy() != predicted.numpy())
    value = build_loss("cross-entropy")(certain(predicted, classes, gain=20.0), truth).item()
    # A wrong voxel costs the distance of the logits.
    assert value == pytest.approx(40 * wrong / truth.numel(), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 10**7), min_size=2, max_size=9))
def test_square_root_inverse_frequency(counts):
    weights = square_root_inverse_frequency(torch.tensor(counts, dtype=torch.float64)).numpy()
    assert weights[0] == 0.5
    foreground = np.array(counts[1:], dtype=float)
    present = foreground > 0
    assert not weights[1:][~present].any()
    if present.any():
        assert weights[1:][present].mean() == pytest.approx(1)
        scaled = weights[1:][present] * np.sqrt(foreground[present])
        assert scaled == pytest.approx(np.full(present.sum(), scaled[0]))


def test_batch_weights_by_hand():
    # 9 voxels of background, 4 of class 1, 1 of class 2: 1/2 and 1, scaled to a mean of 1.
    target = torch.tensor([0] * 9 + [1] * 4 + [2]).view(1, 2, 7)
    logits, _ = draw(2, 1, 3, 2, 7)
    values = functional.cross_entropy(logits, target, reduction="none")
    weights = torch.tensor([0.5, 2 / 3, 4 / 3])[target]
    expected = (weights * values).sum() / (9 * 0.5 + 4 * 2 / 3 + 4 / 3)
    loss = build_loss("cross-entropy", class_weights="batch")
    torch.testing.assert_close(loss(logits, target), expected)
    # A class that is not annotated in a second sample is not counted there.
    both = torch.cat((target, torch.zeros_like(target)))
    annotated = torch.tensor([[True, True, True], [False, False, False]])
    doubled = torch.cat((logits, logits))
    torch.testing.assert_close(loss(doubled, both, annotated), expected)


def test_background_that_may_hide_a_class_is_only_not_the_others():
    logits, target = draw(3, 1, 3, 4, 4)
    target = torch.where(target == 2, 0, target)
    annotated = torch.tensor([[True, True, False]])
    among_the_annotated = functional.cross_entropy(logits[:, :2], target)
    loss = build_loss("cross-entropy")
    torch.testing.assert_close(loss(logits, target, annotated), among_the_annotated)


def test_a_label_that_the_sample_does_not_annotate_is_ignored():
    logits, target = draw(4, 1, 3, 4, 4)
    annotated = torch.tensor([[True, True, False]])
    expected = functional.cross_entropy(
        logits[:, :2], torch.where(target == 2, -100, target), ignore_index=-100
    )
    torch.testing.assert_close(build_loss("cross-entropy")(logits, target, annotated), expected)


@pytest.mark.parametrize("weights", ["equal", "batch", [0.5, 2.0, 3.0]])
def test_ignored_voxels_have_no_weight(weights):
    logits, target = draw(6, 1, 3, 30)
    loss = build_loss("cross-entropy", class_weights=weights)
    hidden = target.clone()
    hidden[0, ::3] = IGNORED
    left = hidden[0] != IGNORED
    torch.testing.assert_close(loss(logits, hidden), loss(logits[:, :, left], target[:, left]))
    if weights != "batch":
        given = None if weights == "equal" else torch.tensor(weights)
        expected = functional.cross_entropy(logits, hidden, weight=given, ignore_index=IGNORED)
        torch.testing.assert_close(loss(logits, hidden), expected)


def test_number_of_weights():
    logits, target = draw(5, 1, 3, 4, 4)
    with pytest.raises(RecipeError, match="2 numbers but the network has 3"):
        build_loss("cross-entropy", class_weights=[1, 2])(logits, target)
    assert build_loss("cross-entropy", class_weights=[1, 2])(logits[:, :1], target.clamp(max=1))
