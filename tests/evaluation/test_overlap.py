from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from leanseg.evaluation import dice_per_label
from leanseg.evaluation.overlap import Counts, overlap_metrics

masks = hnp.arrays(np.bool_, (4, 5, 3))


def metrics_of(prediction, reference, voxel_ml=1.0):
    return overlap_metrics(Counts.of(prediction, reference, prediction.size), voxel_ml)


def flags(n_both, n_predicted, n_referenced, n_neither):
    kinds = np.repeat([3, 1, 2, 0], [n_both, n_predicted, n_referenced, n_neither])
    return (kinds & 1).astype(bool), (kinds & 2).astype(bool)


def test_ratios_by_hand():
    assert metrics_of(*flags(6, 2, 4, 88), voxel_ml=0.5) == pytest.approx(
        {
            "dice": 12 / 18,
            "iou": 6 / 12,
            "sensitivity": 0.6,
            "specificity": 88 / 90,
            "precision": 0.75,
            "volume_difference_ml": -1.0,
            "relative_volume_difference_percent": -20,
            "reference_ml": 5.0,
            "prediction_ml": 4.0,
        }
    )


def test_ratios_without_denominator_are_undefined_not_zero():
    found = metrics_of(*flags(0, 0, 0, 10))
    undefined = {name for name, value in found.items() if value is None}
    ratios = {"dice", "iou", "sensitivity", "precision", "relative_volume_difference_percent"}
    assert undefined == ratios
    assert found["specificity"] == 1.0
    assert metrics_of(*flags(3, 0, 0, 0))["specificity"] is None


@given(masks, masks)
@settings(max_examples=60, deadline=None)
def test_bounds_and_relations(prediction, reference):
    found, swapped = metrics_of(prediction, reference), metrics_of(reference, prediction)
    assert found["dice"] == swapped["dice"]
    assert found["sensitivity"] == swapped["precision"]
    if found["dice"] is not None:
        assert 0 <= found["iou"] <= found["dice"] <= 1
        assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))


def test_a_crop_scores_as_the_scan(rng):
    prediction, reference = rng.random((2, 6, 7, 8)) < 0.3
    prediction[:2], reference[:2] = False, False
    counts = Counts.of(prediction[2:], reference[2:], prediction.size)
    assert overlap_metrics(counts, 1.0) == metrics_of(prediction, reference)


def test_equals_simpleitk_and_monai(rng):
    from monai.metrics import compute_dice, compute_iou

    prediction, reference = rng.random((2, 12, 9, 7)) < 0.4
    found = metrics_of(prediction, reference)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(
        *(SimpleITK.GetImageFromArray(m.view(np.uint8)) for m in (prediction, reference))
    )
    assert found["dice"] == pytest.approx(overlap.GetDiceCoefficient())
    assert found["iou"] == pytest.approx(overlap.GetJaccardCoefficient())
    assert found["sensitivity"] == pytest.approx(1 - overlap.GetFalseNegativeError())
    assert found["precision"] == pytest.approx(1 - overlap.GetFalseDiscoveryRate())
    assert found["specificity"] == pytest.approx(1 - overlap.GetFalsePositiveError())
    tensors = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
    assert found["dice"] == pytest.approx(float(compute_dice(*tensors)), abs=1e-6)
    assert found["iou"] == pytest.approx(float(compute_iou(*tensors)), abs=1e-6)


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
        expected = metrics_of(prediction == value, reference == value)["dice"]
        assert dice[value - 1] == pytest.approx(expected)


def test_dice_per_label_without_ignored_voxels(rng):
    prediction, reference = rng.integers(0, 4, (2, 6, 7, 5), dtype=np.uint8)
    counted = reference != 3
    found = dice_per_label(prediction % 3, reference, 2, ignored=3)
    cut = dice_per_label((prediction % 3)[counted][None], reference[counted][None], 2)
    np.testing.assert_array_equal(found, cut)


def test_dice_per_label_is_nan_where_neither_map_has_it():
    prediction = np.array([[0, 1], [1, 3]])
    reference = np.array([[0, 1], [0, 0]])
    dice = dice_per_label(prediction, reference, 3)
    assert dice[0] == pytest.approx(2 / 3)
    assert np.isnan(dice[1])
    assert dice[2] == 0
