from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from leanseg.errors import GeometryError, LeansegError
from leanseg.evaluation import Counts, count_voxels, dice_per_label

masks = hnp.arrays(np.bool_, (4, 5, 3))


def test_ratios_by_hand():
    counts = Counts(true_positive=6, false_positive=2, false_negative=4, true_negative=88)
    assert counts.dice == pytest.approx(12 / 18)
    assert counts.iou == pytest.approx(6 / 12)
    assert counts.sensitivity == pytest.approx(0.6)
    assert counts.specificity == pytest.approx(88 / 90)
    assert counts.precision == pytest.approx(0.75)
    assert counts.relative_volume_difference_percent == pytest.approx(-20)
    assert counts.volume_difference_ml(0.5) == pytest.approx(-1.0)


def test_ratios_without_denominator_are_undefined_not_zero():
    counts = Counts(0, 0, 0, 10)
    assert counts.dice is counts.iou is counts.sensitivity is counts.precision is None
    assert counts.relative_volume_difference_percent is None
    assert counts.specificity == 1.0
    assert Counts(3, 0, 0, 0).specificity is None


@given(masks, masks)
@settings(max_examples=60, deadline=None)
def test_counts_partition_the_scan(prediction, reference):
    counts = count_voxels(prediction, reference)
    assert counts == Counts(
        int((prediction & reference).sum()),
        int((prediction & ~reference).sum()),
        int((~prediction & reference).sum()),
        int((~prediction & ~reference).sum()),
    )


@given(masks, masks)
@settings(max_examples=60, deadline=None)
def test_bounds_and_relations(prediction, reference):
    counts, swapped = count_voxels(prediction, reference), count_voxels(reference, prediction)
    assert counts.dice == swapped.dice
    assert counts.sensitivity == swapped.precision
    if counts.dice is not None and counts.iou is not None:
        assert 0 <= counts.iou <= counts.dice <= 1
        assert counts.dice == pytest.approx(2 * counts.iou / (1 + counts.iou))


def test_counts_of_a_crop_are_those_of_the_scan(rng):
    prediction, reference = rng.random((2, 6, 7, 8)) < 0.3
    prediction[:2], reference[:2] = False, False
    whole = count_voxels(prediction, reference)
    assert count_voxels(prediction[2:], reference[2:], n_voxels=prediction.size) == whole


def test_equals_simpleitk_and_monai(rng):
    from monai.metrics import compute_dice, compute_iou

    prediction, reference = rng.random((2, 12, 9, 7)) < 0.4
    counts = count_voxels(prediction, reference)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(
        *(SimpleITK.GetImageFromArray(m.view(np.uint8)) for m in (prediction, reference))
    )
    assert counts.dice == pytest.approx(overlap.GetDiceCoefficient())
    assert counts.iou == pytest.approx(overlap.GetJaccardCoefficient())
    assert counts.sensitivity == pytest.approx(1 - overlap.GetFalseNegativeError())
    assert counts.precision == pytest.approx(1 - overlap.GetFalseDiscoveryRate())
    assert counts.specificity == pytest.approx(1 - overlap.GetFalsePositiveError())
    tensors = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
    assert counts.dice == pytest.approx(float(compute_dice(*tensors)), abs=1e-6)
    assert counts.iou == pytest.approx(float(compute_iou(*tensors)), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_dice_per_label_equals_monai(rng, dtype, order):
    from monai.metrics import DiceMetric
    from monai.networks.utils import one_hot

    maps = [np.asarray(rng.integers(0, 4, (9, 8, 7)), dtype=dtype, order=order) for _ in range(2)]
    hot = [one_hot(torch.from_numpy(m.astype(np.int64))[None, None], 4) for m in maps]
    expected = DiceMetric(include_background=False, reduction="none")(*hot)[0].numpy()
    np.testing.assert_allclose(dice_per_label(*maps, n_labels=3), expected, atol=1e-6)


def test_dice_per_label_with_mixed_memory_order_and_many_labels(rng):
    prediction, reference = rng.integers(0, 301, (2, 40, 30, 20))
    dice = dice_per_label(np.asfortranarray(prediction), reference, 300)
    for value in (1, 150, 300):
        expected = count_voxels(prediction == value, reference == value).dice
        assert dice[value - 1] == pytest.approx(expected)


def test_dice_per_label_in_several_steps(rng, monkeypatch):
    monkeypatch.setattr("leanseg.evaluation.overlap._CHUNK", 50)
    prediction, reference = rng.integers(0, 3, (2, 7, 7, 7))
    expected = [count_voxels(prediction == v, reference == v).dice for v in (1, 2)]
    np.testing.assert_allclose(dice_per_label(prediction, reference, 2), expected)


def test_dice_per_label_is_nan_where_neither_map_has_it():
    prediction = np.array([0, 1, 1, 3])
    reference = np.array([0, 1, 0, 0])
    dice = dice_per_label(prediction, reference, 3)
    assert dice[0] == pytest.approx(2 / 3)
    assert np.isnan(dice[1])
    assert dice[2] == 0


def test_dice_per_label_refuses_other_shapes_and_values():
    with pytest.raises(GeometryError, match=r"\(2,\).*\(3,\)"):
        dice_per_label(np.zeros(2, int), np.zeros(3, int), 1)
    with pytest.raises(LeansegError, match="label value 2 lies outside 0 to 1"):
        dice_per_label(np.array([0, 2]), np.array([0, 1]), 1)
    with pytest.raises(LeansegError, match="label value -1 lies outside"):
        dice_per_label(np.array([0, 1]), np.array([0, -1]), 1)
