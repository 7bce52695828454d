from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import certain, draw

from leanseg.losses import build_loss


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize(
    ("classes", "background"), [(1, False), (2, False), (2, True), (4, False), (4, True)]
)
@pytest.mark.parametrize("smooth", [1.0, 1e-5])
def test_equals_monai(classes, background, spatial, smooth):
    from monai.losses import DiceLoss

    logits, target = draw(0, 3, classes, *spatial)
    oracle = DiceLoss(
        include_background=background or classes == 1,
        to_onehot_y=classes > 1,
        sigmoid=classes == 1,
        softmax=classes > 1,
        batch=True,
        smooth_nr=smooth,
        smooth_dr=smooth,
    )
    loss = build_loss("dice", smooth=smooth, include_background=background)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None].float()))


def test_by_hand():
    # Probabilities .5, .5, .5, .5 over two samples; two of the voxels are of the class.
    logits = torch.zeros(2, 1, 1, 2)
    target = torch.tensor([[[1, 0]], [[1, 0]]])
    # 1 - (2 (.5 + .5) + 1) / (2 + 2 + 1)
    assert build_loss("dice")(logits, target).item() == pytest.approx(1 - 3 / 5)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(1, 5),
    batch=st.integers(1, 3),
    background=st.booleans(),
    smooth=st.floats(1e-6, 10),
    gain=st.floats(0, 50),
)
def test_range(seed, classes, batch, background, smooth, gain):
    logits, target = draw(seed, batch, classes, 4, 3)
    value = build_loss("dice", smooth=smooth, include_background=background)(gain * logits, target)
    assert value.shape == ()
    assert -1e-6 <= value.item() <= 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(1, 4), smooth=st.floats(1e-3, 10))
def test_certain_predictions_give_the_hard_count(seed, classes, smooth):
    _, truth = draw(seed, 2, classes, 4, 3)
    _, predicted = draw(seed + 1, 2, classes, 4, 3)
    truth_map, predicted_map = truth.numpy(), predicted.numpy()
    per_class = [
        1
        - (2 * np.count_nonzero((truth_map == value) & (predicted_map == value)) + smooth)
        / (np.count_nonzero(truth_map == value) + np.count_nonzero(predicted_map == value) + smooth)
        for value in range(1, max(2, classes))
    ]
    loss = build_loss("dice", smooth=smooth)
    value = loss(certain(predicted, classes), truth).item()
    assert value == pytest.approx(np.mean(per_class), abs=1e-6)
    # Hard Dice does not know which of the two maps is the reference.
    assert loss(certain(truth, classes), predicted).item() == pytest.approx(value, abs=1e-6)
    assert loss(certain(truth, classes), truth).item() == pytest.approx(0, abs=1e-6)


def test_absent_class():
    target = torch.zeros(1, 2, 5, dtype=torch.long)
    loss = build_loss("dice")
    assert loss(certain(target, 3), target).item() == 0
    # Class 1 predicted at 10 voxels, none there: 1 - 1 / 11; class 2 neither: 0.
    wrong = certain(torch.ones_like(target), 3).requires_grad_()
    value = loss(wrong, target)
    assert value.item() == pytest.approx((10 / 11 + 0) / 2)
    value.backward()
    assert wrong.grad.isfinite().all()


@pytest.mark.parametrize("background", [False, True])
def test_unannotated_class_has_neither_loss_nor_gradient(background):
    logits, target = draw(6, 2, 4, 4, 4)
    target[0][target[0] == 2] = 0  # as the files of such a case are
    annotated = torch.ones(2, 4, dtype=torch.bool)
    annotated[0, 2] = False
    loss = build_loss("dice", include_background=background)
    logits.requires_grad_()
    value = loss(logits, target, annotated)
    value.backward()
    assert not logits.grad[0, 2].any()
    assert logits.grad[0, 1].all() and logits.grad[1].all()
    changed = logits.detach().clone()
    changed[0, 2] += 10 * torch.randn(4, 4)
    torch.testing.assert_close(loss(changed, target, annotated), value.detach())


def test_background_that_may_hide_a_class_takes_no_part():
    logits, target = draw(7, 2, 3, 4, 4)
    annotated = torch.tensor([[True, True, False], [True, True, True]])
    loss = build_loss("dice", include_background=True)
    background_alone = [
        build_loss("dice", include_background=True)(logits, target, annotated & keep)
        for keep in (torch.tensor([True, True, True]), torch.tensor([False, True, True]))
    ]
    # Sample 1 annotates all, so its background still counts.
    assert background_alone[0] != background_alone[1]
    hidden = torch.tensor([[True, True, False]] * 2)
    withheld = torch.tensor([[False, True, False]] * 2)
    assert torch.equal(loss(logits, target, hidden), loss(logits, target, withheld))


def test_class_that_nobody_annotates_leaves_the_mean():
    logits, target = draw(8, 2, 3, 4, 4)
    annotated = torch.tensor([[True, True, False]] * 2)
    two_classes = build_loss("dice")(logits[:, :2], torch.where(target == 1, 1, 0))
    torch.testing.assert_close(build_loss("dice")(logits, target, annotated), two_classes)
