"""All combinations of empty masks, under every policy."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.errors import LeansegError
from leanseg.evaluation import METRIC_NAMES, EvaluationSettings, evaluate_masks

SPACING = (1.0, 2.0, 5.0)  # 0.01 ml a voxel
EMPTY = np.zeros((6, 7, 8), np.uint8)
FILLED = EMPTY.copy()
FILLED[1:3, 2:4, 3:6] = 1  # 12 voxels
DIAGONAL_MM = float(np.linalg.norm([5 * 1.0, 6 * 2.0, 7 * 5.0]))
DISTANCES = ("hausdorff_mm", "hausdorff95_mm", "assd_mm")


def score(prediction, reference, **options):
    settings = EvaluationSettings(**options)
    (result,) = evaluate_masks(prediction, reference, SPACING, {"organ": 1}, settings=settings)
    assert tuple(result.metrics) == METRIC_NAMES
    return result.metrics, result.note


def test_neither_empty_has_no_note():
    metrics, note = score(FILLED, FILLED)
    assert note is None
    assert metrics["dice"] == metrics["surface_dice"] == 1
    assert metrics["hausdorff_mm"] == 0


def test_both_empty_is_undefined_by_default():
    metrics, note = score(EMPTY, EMPTY)
    assert note == "both empty"
    defined = {name: value for name, value in metrics.items() if value is not None}
    assert defined == {
        "specificity": 1.0,
        "volume_difference_ml": 0.0,
        "reference_ml": 0.0,
        "prediction_ml": 0.0,
    }


def test_both_empty_can_be_perfect():
    metrics, note = score(EMPTY, EMPTY, empty="perfect")
    assert note == "both empty"
    for name in ("dice", "iou", "sensitivity", "specificity", "precision", "surface_dice"):
        assert metrics[name] == 1.0
    for name in (*DISTANCES, "volume_difference_ml", "relative_volume_difference_percent"):
        assert metrics[name] == 0.0


@pytest.mark.parametrize("empty", ["undefined", "perfect"])
def test_only_the_prediction_empty(empty):
    metrics, note = score(EMPTY, FILLED, empty=empty)
    assert note == "prediction empty"
    assert metrics["dice"] == metrics["iou"] == metrics["surface_dice"] == 0
    assert metrics["sensitivity"] == 0
    assert metrics["precision"] is None
    assert metrics["specificity"] == 1
    assert metrics["relative_volume_difference_percent"] == -100
    assert metrics["reference_ml"] == pytest.approx(0.12)
    assert metrics["volume_difference_ml"] == pytest.approx(-0.12)
    assert all(metrics[name] is None for name in DISTANCES)


@pytest.mark.parametrize("empty", ["undefined", "perfect"])
def test_only_the_reference_empty(empty):
    metrics, note = score(FILLED, EMPTY, empty=empty)
    assert note == "reference empty, 0.12 ml predicted"
    assert metrics["dice"] == metrics["iou"] == metrics["surface_dice"] == 0
    assert metrics["precision"] == 0
    assert metrics["sensitivity"] is None
    assert metrics["relative_volume_difference_percent"] is None
    assert metrics["prediction_ml"] == metrics["volume_difference_ml"] == pytest.approx(0.12)
    assert all(metrics[name] is None for name in DISTANCES)


@pytest.mark.parametrize("pair", [(EMPTY, FILLED), (FILLED, EMPTY)])
def test_the_diagonal_when_asked(pair):
    metrics, _ = score(*pair, one_empty_distance="diagonal")
    assert [metrics[name] for name in DISTANCES] == pytest.approx([DIAGONAL_MM] * 3)


def test_the_diagonal_is_not_for_two_empty_masks():
    metrics, _ = score(EMPTY, EMPTY, one_empty_distance="diagonal")
    assert metrics["hausdorff_mm"] is None


def test_the_diagonal_bounds_every_distance():
    a, b = np.zeros((2, *EMPTY.shape), np.uint8)
    a[0, 0, 0], b[-1, -1, -1] = 1, 1
    assert score(a, b)[0]["hausdorff_mm"] == pytest.approx(DIAGONAL_MM)


def test_one_empty_label_leaves_the_other_alone():
    prediction = FILLED.copy()
    prediction[4, 5, 6] = 2
    first, second = evaluate_masks(prediction, FILLED, SPACING, {"organ": 1, "tumour": 2})
    assert first.note is None
    assert first.metrics["dice"] == 1
    assert second.note == "reference empty, 0.01 ml predicted"


def test_a_mask_that_fills_the_scan_has_no_surface_inside_it():
    full = np.ones((4, 4, 4), np.uint8)
    metrics, note = score(full, full, scan_border="open")
    assert note == "no surface inside the scan"
    assert metrics["dice"] == 1
    assert metrics["hausdorff_mm"] is metrics["surface_dice"] is metrics["specificity"] is None


@pytest.mark.parametrize(
    "options",
    [
        {"surface_tolerance_mm": -1.0},
        {"surface_tolerance_mm": float("nan")},
        {"empty": "zero"},
        {"one_empty_distance": "far"},
        {"scan_border": "shut"},
    ],
)
def test_settings_that_do_not_exist(options):
    ((name, value),) = options.items()
    with pytest.raises(LeansegError, match=f"'{name}' is {value!r} but should"):
        EvaluationSettings(**options)
