from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.errors import RecipeError
from leanseg.losses import build_loss

CERTAIN = 60.0  # a logit whose probability is 1, or 0, in float32


def _draw(seed, batch, classes, *spatial, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *spatial, generator=generator, dtype=dtype)
    target = torch.randint(max(2, classes), (batch, *spatial), generator=generator)
    return logits, target


def _one_hot(target, classes):
    return torch.stack([target == value for value in range(classes)], dim=1)


def _certain(target, classes):
    """Logits that predict exactly the class map."""
    truth = target[:, None] == 1 if classes == 1 else _one_hot(target, classes)
    return torch.where(truth, CERTAIN, -CERTAIN)


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize(
    ("classes", "background"), [(1, False), (2, False), (2, True), (4, False), (4, True)]
)
@pytest.mark.parametrize("smooth", [1.0, 1e-5])
def test_equals_monai(classes, background, spatial, smooth):
    from monai.losses import DiceLoss

    logits, target = _draw(0, 3, classes, *spatial)
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


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("with_annotated", [False, True])
def test_gradient_equals_finite_differences(classes, with_annotated):
    logits, target = _draw(1, 2, classes, 3, 4, dtype=torch.float64)
    annotated = None
    if with_annotated:
        annotated = torch.ones(2, classes, dtype=torch.bool)
        annotated[0, -1] = False
    loss = build_loss("dice", include_background=True)
    assert torch.autograd.gradcheck(
        lambda values: loss(values, target, annotated), logits.requires_grad_()
    )


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
    logits, target = _draw(seed, batch, classes, 4, 3)
    value = build_loss("dice", smooth=smooth, include_background=background)(gain * logits, target)
    assert value.shape == ()
    assert -1e-6 <= value.item() <= 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(1, 4), smooth=st.floats(1e-3, 10))
def test_certain_predictions_give_the_hard_count(seed, classes, smooth):
    _, truth = _draw(seed, 2, classes, 4, 3)
    _, predicted = _draw(seed + 1, 2, classes, 4, 3)
    truth_map, predicted_map = truth.numpy(), predicted.numpy()
    per_class = [
        1
        - (2 * np.count_nonzero((truth_map == value) & (predicted_map == value)) + smooth)
        / (np.count_nonzero(truth_map == value) + np.count_nonzero(predicted_map == value) + smooth)
        for value in range(1, max(2, classes))
    ]
    loss = build_loss("dice", smooth=smooth)
    value = loss(_certain(predicted, classes), truth).item()
    assert value == pytest.approx(np.mean(per_class), abs=1e-6)
    # Hard Dice does not know which of the two maps is the reference.
    assert loss(_certain(truth, classes), predicted).item() == pytest.approx(value, abs=1e-6)
    assert loss(_certain(truth, classes), truth).item() == pytest.approx(0, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_classes_are_exchangeable(seed):
    logits, target = _draw(seed, 2, 4, 4, 3)
    order = torch.tensor([0, 3, 1, 2])  # class c of the new order is class order[c] of the old
    renamed = torch.argsort(order)[target]
    loss = build_loss("dice")
    torch.testing.assert_close(loss(logits[:, order], renamed), loss(logits, target))


def test_absent_class():
    target = torch.zeros(1, 2, 5, dtype=torch.long)
    loss = build_loss("dice")
    assert loss(_certain(target, 3), target).item() == 0
    # Class 1 predicted at 10 voxels, none there: 1 - 1 / 11; class 2 neither: 0.
    wrong = _certain(torch.ones_like(target), 3).requires_grad_()
    value = loss(wrong, target)
    assert value.item() == pytest.approx((10 / 11 + 0) / 2)
    value.backward()
    assert wrong.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_type_of_the_target_does_not_matter(dtype):
    logits, target = _draw(2, 2, 3, 4, 4)
    loss = build_loss("dice")
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


@pytest.mark.parametrize("classes", [1, 3])
def test_float32_under_autocast_and_for_bfloat16(classes):
    logits, target = _draw(3, 2, classes, 64, 64)
    coarse = logits.bfloat16()
    loss = build_loss("dice")
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(coarse, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(coarse.float(), target))


def test_all_annotated_changes_nothing():
    for classes, background in ((1, False), (3, False), (3, True)):
        logits, target = _draw(4, 2, classes, 4, 4)
        loss = build_loss("dice", include_background=background)
        everything = torch.ones(2, classes, dtype=torch.bool)
        torch.testing.assert_close(loss(logits, target, everything), loss(logits, target))


def test_sample_without_annotation_is_as_if_not_there():
    logits, target = _draw(5, 3, 1, 4, 4)
    logits.requires_grad_()
    loss = build_loss("dice")
    value = loss(logits, target, torch.tensor([[True], [False], [True]]))
    torch.testing.assert_close(value, loss(logits[[0, 2]], target[[0, 2]]))
    value.backward()
    assert not logits.grad[1].any()
    assert logits.grad[[0, 2]].all()


@pytest.mark.parametrize("background", [False, True])
def test_unannotated_class_has_neither_loss_nor_gradient(background):
    logits, target = _draw(6, 2, 4, 4, 4)
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
    logits, target = _draw(7, 2, 3, 4, 4)
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
    logits, target = _draw(8, 2, 3, 4, 4)
    annotated = torch.tensor([[True, True, False]] * 2)
    two_classes = build_loss("dice")(logits[:, :2], torch.where(target == 1, 1, 0))
    torch.testing.assert_close(build_loss("dice")(logits, target, annotated), two_classes)


@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_annotated_gives_zero_with_zero_gradient(classes):
    logits, target = _draw(9, 2, classes, 4, 4)
    logits.requires_grad_()
    value = build_loss("dice")(logits, target, torch.zeros(2, classes, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("smooth", [0.0, -1.0, float("nan"), "1"])
def test_refused_smoothing(smooth):
    with pytest.raises(RecipeError, match="smooth"):
        build_loss("dice", smooth=smooth)
