from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import certain, draw, one_hot

from leanseg.errors import RecipeError
from leanseg.losses import build_loss
from leanseg.losses.shared_boundary import boundary_lengths


def count_faces(classes, number):
    """Faces between each two classes of one class map, voxel by voxel."""
    faces = np.zeros((number, number))
    for place in product(*map(range, classes.shape)):
        for axis in range(classes.ndim):
            neighbour = list(place)
            neighbour[axis] += 1
            if neighbour[axis] < classes.shape[axis]:
                one, other = classes[place], classes[tuple(neighbour)]
                if one != other:
                    faces[one, other] += 1
                    faces[other, one] += 1
    return faces


def shares(faces):
    total = faces.sum(axis=1, keepdims=True)
    return faces / np.maximum(total, 1)


@pytest.mark.parametrize("spatial", [(6, 5), (3, 4, 3), (1, 7)])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 4))
def test_soft_form_is_the_hard_count_on_class_maps(spatial, seed, classes):
    _, target = draw(seed, 2, classes, *spatial)
    lengths = boundary_lengths(one_hot(target, classes).double())
    for sample in range(2):
        expected = count_faces(target[sample].numpy(), classes)
        assert torch.equal(lengths[sample], torch.from_numpy(expected))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(3, 4))
def test_loss_of_certain_predictions(seed, classes):
    _, truth = draw(seed, 2, classes, 5, 4)
    _, predicted = draw(seed + 1, 2, classes, 5, 4)
    expected = []
    for a, b in zip(truth.numpy(), predicted.numpy(), strict=True):
        square = (shares(count_faces(a, classes)) - shares(count_faces(b, classes))) ** 2
        for value in range(classes):
            if not (a == value).any():
                square[value] = 0
        expected.append(square.sum() / classes**2)
    value = build_loss("shared-boundary")(certain(predicted, classes), truth).item()
    assert value == pytest.approx(np.mean(expected), abs=1e-6)


def test_by_hand():
    # Rows 0 0 / 1 2: between 0 and 1 one face, between 0 and 2 one, between 1 and 2 one.
    target = torch.tensor([[[0, 0], [1, 2]]])
    measure = build_loss("shared-boundary").measure(one_hot(target, 3).double())
    half = torch.tensor([[[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]], dtype=torch.float64)
    torch.testing.assert_close(measure, half, atol=1e-6, rtol=0)


def test_soft_lengths_by_hand():
    p = torch.tensor([[[[0.5, 0.2]], [[0.3, 0.2]], [[0.2, 0.6]]]], dtype=torch.float64)
    lengths = boundary_lengths(p)[0]
    assert lengths[0, 1].item() == pytest.approx(0.5 * 0.2 + 0.3 * 0.2)
    assert lengths[0, 2].item() == pytest.approx(0.5 * 0.6 + 0.2 * 0.2)
    assert lengths[2, 1].item() == pytest.approx(0.2 * 0.2 + 0.6 * 0.3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_two_classes_are_constant_and_refused(seed):
    logits, target = draw(seed, 2, 2, 4, 5, dtype=torch.float64)
    loss = build_loss("shared-boundary")
    constant = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64).expand(2, 2, 2)
    torch.testing.assert_close(loss.measure(logits.softmax(1)), constant, atol=1e-5, rtol=0)
    with pytest.raises(RecipeError, match="at least 3 classes"):
        loss(logits, target)


def test_absent_row_is_not_compared():
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[0, :2] = 1
    predicted = target.clone()
    predicted[0, 3, 3] = 2  # class 2 is in no truth: its own row is free, row 0 pays
    value = build_loss("shared-boundary")(certain(predicted, 3), target).item()
    assert value == pytest.approx(2 * (2 / 6) ** 2 / 9, abs=1e-6)


def test_two_heads_as_probabilities():
    # Paper 003: pancreas from the first stage, tumour from the second, on class maps.
    _, target = draw(1, 2, 3, 5, 5)
    pancreas, tumour = (target > 0).double(), (target == 2).double()
    heads = torch.stack(
        ((1 - pancreas) * (1 - tumour), pancreas * (1 - tumour), tumour), dim=1
    ).requires_grad_()
    values = build_loss("shared-boundary").per_sample(heads, one_hot(target, 3).double())
    assert values.shape == (2,)
    assert values.abs().max() == 0


def test_sample_with_an_unannotated_class_takes_no_part():
    logits, target = draw(2, 2, 3, 4, 4)
    annotated = torch.tensor([[True, True, False], [True, True, True]])
    loss = build_loss("shared-boundary")
    logits.requires_grad_()
    value = loss(logits, target, annotated)
    torch.testing.assert_close(value, loss(logits[1:], target[1:]))
    value.backward()
    assert not logits.grad[0].any() and logits.grad[1].any()
