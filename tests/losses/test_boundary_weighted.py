from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import certain, draw
from scipy import ndimage
from scipy.special import expit, softmax

from leanseg.losses import build_loss


def by_formula(probability, mask, strength=5.0, window=31, smooth=1.0):
    """Equation 12 for one sample and class in numpy, with scipy's box filter."""
    mean = ndimage.uniform_filter(mask.astype(float), window, mode="constant")
    w = 1 + strength * np.abs(mean - mask)
    entropy = -(mask * np.log(probability) + (1 - mask) * np.log1p(-probability))
    overlap = (w * probability * mask).sum()
    union = (w * (probability + mask)).sum() - overlap
    return (w * entropy).sum() / w.sum() + 1 - (overlap + smooth) / (union + smooth)


@pytest.mark.parametrize("spatial", [(40, 37), (9, 7), (6, 8, 33)])
@pytest.mark.parametrize("strength", [5.0, 0.0])
def test_one_channel_equals_the_formula(spatial, strength):
    logits, target = draw(0, 2, 1, *spatial)
    expected = np.mean(
        [
            by_formula(expit(z[0].double().numpy()), y.numpy(), strength)
            for z, y in zip(logits, target, strict=True)
        ]
    )
    loss = build_loss("boundary-bce-iou", boundary_weight=strength)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_several_classes_are_each_one_against_the_rest():
    logits, target = draw(1, 2, 4, 8, 9)
    p = softmax(logits.double().numpy(), axis=1)
    values = [
        by_formula(p[sample, value], (target[sample] == value).numpy().astype(int), window=5)
        for sample in range(2)
        for value in (1, 2, 3)
    ]
    loss = build_loss("boundary-bce-iou", window=5)
    assert loss(logits, target).item() == pytest.approx(np.mean(values), rel=1e-5)
    # A class that a sample does not annotate leaves the mean.
    annotated = torch.ones(2, 4, dtype=torch.bool)
    annotated[0, 2] = False
    logits[0, 2] = -1e4  # as if it were never predicted
    p = softmax(logits.double().numpy(), axis=1)
    known = [
        by_formula(p[sample, value], (target[sample] == value).numpy().astype(int), window=5)
        for sample, value in ((0, 1), (0, 3), (1, 1), (1, 2), (1, 3))
    ]
    assert loss(logits, target, annotated).item() == pytest.approx(np.mean(known), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), window=st.sampled_from([1, 3, 31]))
def test_weights_are_in_range(seed, window):
    _, target = draw(seed, 2, 1, 7, 6)
    mask = target[:, None].float()
    weights = build_loss("boundary-bce-iou", window=window).weights(mask)
    assert weights.shape == mask.shape
    assert weights.min() >= 1 - 1e-6 and weights.max() <= 6
    if window == 1:
        assert torch.equal(weights, torch.ones_like(weights))


def test_weights_are_one_far_from_the_boundary_and_high_at_it():
    mask = torch.zeros(1, 1, 200, 200)
    mask[..., 60:140, 60:140] = 1
    weights = build_loss("boundary-bce-iou").weights(mask)[0, 0]
    assert weights[100, 100] == pytest.approx(1) and weights[10, 10] == pytest.approx(1)
    # At the middle of a side 15 of 31 rows are outside, in the corner 1 - (16 / 31)^2.
    assert weights[60, 100].item() == pytest.approx(1 + 5 * 15 / 31, rel=1e-5)
    assert weights[60, 60].item() == pytest.approx(1 + 5 * (1 - (16 / 31) ** 2), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_certain_predictions_give_the_hard_count(seed):
    _, truth = draw(seed, 1, 1, 5, 6)
    _, predicted = draw(seed + 1, 1, 1, 5, 6)
    a, b = truth[0].numpy() == 1, predicted[0].numpy() == 1
    loss = build_loss("boundary-bce-iou", boundary_weight=0.0)
    value = loss(certain(predicted, 1, gain=30.0), truth).item()
    jaccard = (np.count_nonzero(a & b) + 1) / (np.count_nonzero(a | b) + 1)
    assert value == pytest.approx(30 * np.mean(a != b) + 1 - jaccard, rel=1e-5, abs=1e-6)
