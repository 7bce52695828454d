from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from leanseg.datasets.load import label_array
from leanseg.errors import GeometryError, LeansegError
from leanseg.evaluation import EvaluationSettings, evaluate_masks
from surface_metrics import surface_dice, surface_distances

SPACING = (0.8, 0.9, 2.5)


@pytest.fixture
def maps(rng):
    fields = [gaussian_filter(rng.standard_normal((20, 22, 18)), 2) for _ in range(2)]
    mixed = (fields[0], 0.8 * fields[0] + 0.4 * fields[1])
    return [np.digitize(field, [0.02, 0.06]).astype(np.uint8) for field in mixed]


def test_every_metric_of_every_label(maps):
    scores = evaluate_masks(*maps, SPACING, {"a": 1, "b": 2}, settings=EvaluationSettings(1.7))
    assert [score.label for score in scores] == ["a", "b"]
    for score, value in zip(scores, (1, 2), strict=True):
        prediction, reference = (m == value for m in maps)
        distances = surface_distances(prediction, reference, SPACING)
        both = (prediction & reference).sum()
        voxel_ml = 0.8 * 0.9 * 2.5 / 1000
        labelled = (maps[1] > 0).any(axis=(0, 1))
        within = prediction[..., labelled]
        in_labelled = within.sum() + reference.sum()
        negative = ~reference[..., labelled]
        expected = {
            "dice": 2 * both / (prediction.sum() + reference.sum()),
            "dice_labelled_slices": 2 * both / in_labelled,
            "iou": both / (prediction | reference).sum(),
            "sensitivity": both / reference.sum(),
            "sensitivity_labelled_slices": both / reference.sum(),
            "specificity": (~(prediction | reference)).sum() / (~reference).sum(),
            "specificity_labelled_slices": (negative & ~within).sum() / negative.sum(),
            "precision": both / prediction.sum(),
            "volume_difference_ml": (prediction.sum() - float(reference.sum())) * voxel_ml,
            "relative_volume_difference_percent": 100 * (prediction.sum() / reference.sum() - 1),
            "hausdorff_mm": distances.hausdorff_mm,
            "hausdorff95_mm": distances.hausdorff95_mm,
            "log_hausdorff_pixels": np.log(distances.hausdorff_mm / np.sqrt(0.8 * 0.9)),
            "assd_mm": distances.assd_mm,
            "surface_dice": surface_dice(prediction, reference, SPACING, 1.7),
            "reference_ml": reference.sum() * voxel_ml,
            "prediction_ml": prediction.sum() * voxel_ml,
        }
        assert score.metrics == pytest.approx(expected)
        assert list(score.metrics) == list(expected)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.int64])
@pytest.mark.parametrize("orders", ["CC", "FF", "CF"])
def test_independent_of_type_and_memory_order(maps, dtype, orders):
    expected = evaluate_masks(*maps, SPACING, {"a": 1, "b": 2})
    stored = [np.asarray(m, dtype=dtype, order=o) for m, o in zip(maps, orders, strict=True)]
    for actual, score in zip(
        evaluate_masks(*stored, SPACING, {"a": 1, "b": 2}), expected, strict=True
    ):
        assert actual.metrics == pytest.approx(score.metrics)


OVERLAP = ("dice", "iou", "sensitivity", "specificity", "precision")
VOLUMES = ("volume_difference_ml", "reference_ml", "prediction_ml")
OF_SURFACES = ("hausdorff_mm", "hausdorff95_mm", "assd_mm", "surface_dice")


@pytest.mark.parametrize("order", ["C", "F"])
def test_ignored_voxels_are_as_if_cut_out(maps, rng, order):
    prediction, reference = maps
    ignored = rng.random(reference.shape) < 0.3
    hidden = np.asarray(np.where(ignored, 9, reference), order=order)
    labels = {"a": 1, "b": 2, "both": [1, 2]}
    stored = np.asarray(prediction, order=order)
    found = evaluate_masks(stored, hidden, SPACING, labels, ignored_values=[9])
    left = [m[~ignored].reshape(-1, 1, 1) for m in maps]
    cut = evaluate_masks(*left, SPACING, labels)
    as_background = evaluate_masks(*(np.where(ignored, 0, m) for m in maps), SPACING, labels)
    for score, overlap, surface in zip(found, cut, as_background, strict=True):
        for name in (*OVERLAP, *VOLUMES):
            assert score.metrics[name] == pytest.approx(overlap.metrics[name])
        for name in OF_SURFACES:
            assert score.metrics[name] == pytest.approx(surface.metrics[name])
    assert stored.max() == 2  # nothing was changed in what was given
    assert (hidden == 9).sum() == ignored.sum()


def test_an_ignored_slab_is_as_if_outside_the_scan(maps):
    """Every metric, where what is left is a scan of its own."""
    prediction, reference = maps
    hidden = reference.copy()
    hidden[12:] = 4
    hidden[:, :3] = 5
    labels = {"a": 1, "b": 2}
    found = evaluate_masks(prediction, hidden, SPACING, labels, ignored_values=[4, 5])
    cut = evaluate_masks(prediction[:12, 3:], reference[:12, 3:], SPACING, labels)
    for score, other in zip(found, cut, strict=True):
        assert score.metrics == pytest.approx(other.metrics)


def test_where_all_is_ignored_nothing_is_defined():
    prediction = np.ones((3, 3, 3), np.uint8)
    (score,) = evaluate_masks(prediction, 2 * prediction, SPACING, {"a": 1}, ignored_values=[2])
    assert score.note == "both empty"
    assert {v for name, v in score.metrics.items() if not name.endswith("_ml")} == {None}
    assert score.metrics["prediction_ml"] == 0


@pytest.mark.parametrize(
    ("ignored", "told"),
    [
        ([2], "value 2 is ignored and also belongs to the label 'b'"),
        ([0], "ignored value is 0; give a whole number from 1 on"),
        ([-1], "ignored value is -1"),
    ],
)
def test_ignored_values_that_make_no_sense(maps, ignored, told):
    with pytest.raises(LeansegError, match=told):
        evaluate_masks(*maps, SPACING, {"a": 1, "b": 2}, ignored_values=ignored)


def test_merged_labels_and_other_values_in_predictions(maps):
    prediction, reference = maps
    merged = evaluate_masks(prediction, reference, SPACING, {"all": [1, 2], "core": 2})
    as_one = evaluate_masks(prediction > 0, reference > 0, SPACING, {"all": 1})
    assert merged[0].metrics == as_one[0].metrics
    renumbered = np.array([0, 7, 9], np.uint8)[prediction]
    again = evaluate_masks(
        renumbered,
        reference,
        SPACING,
        {"all": [1, 2], "core": 2},
        prediction_labels={"all": [7, 9], "core": 9},
    )
    assert again == merged


def test_prediction_labels_may_name_only_what_differs(maps):
    prediction, reference = maps
    renumbered = np.array([0, 1, 9], np.uint8)[prediction]
    labels = {"a": 1, "b": 2}
    actual = evaluate_masks(renumbered, reference, SPACING, labels, prediction_labels={"b": 9})
    assert actual == evaluate_masks(prediction, reference, SPACING, labels)
    with pytest.raises(LeansegError, match=r"prediction label 'c' is none of .*a, b"):
        evaluate_masks(prediction, reference, SPACING, labels, prediction_labels={"c": 9})


def test_a_value_past_the_type_is_simply_absent(maps):
    (score,) = evaluate_masks(*maps, SPACING, {"a": 300})
    assert score.note == "both empty"


def test_other_shapes():
    with pytest.raises(GeometryError, match=r"\(3, 3, 3\).*\(3, 3, 4\)"):
        evaluate_masks(np.zeros((3, 3, 3), int), np.zeros((3, 3, 4), int), SPACING, {"a": 1})
    with pytest.raises(GeometryError, match="must be 3-D"):
        evaluate_masks(np.zeros((3, 3), int), np.zeros((3, 3), int), SPACING, {"a": 1})


@pytest.mark.parametrize("spacing", [(1, 0, 1), (1, -1, 1), (1, np.nan, 1)])
def test_other_spacings(maps, spacing):
    with pytest.raises(GeometryError, match="is not positive"):
        evaluate_masks(*maps, spacing, {"a": 1})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0.37, "0.37"), (0.99999994, "0.99999994"), (np.nan, "nan"), (np.inf, "inf")),
        *((-1, "-1"), (65536, "65536"), (65535.996, "65535.996"), (1e10, "10000000000.0")),
    ],
)
def test_values_that_are_no_labels(maps, value, shown):
    array = np.zeros((3, 3, 3), np.float32)
    array[1, 1, 1] = value
    with pytest.raises(LeansegError, match=rf"case\.nii: labels? .*{shown}"):
        label_array(array, "case.nii")
    with pytest.raises(LeansegError, match=shown):
        evaluate_masks(array, array, SPACING, {"a": 1})
    with pytest.raises(LeansegError, match="values of type complex64"):
        label_array(array.astype(np.complex64))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labelled_slices_are_axial_and_hold_any_scored_label(rng, order, axis):
    """By the affine; what is predicted elsewhere does not count, and ignored voxels nowhere."""
    prediction, reference = rng.integers(0, 4, (2, 9, 10, 11)).astype(np.uint8)
    for k in (0, 4, 5):
        np.moveaxis(reference, axis, 0)[k] = 0
    # A slice with a label that nobody scores is none.
    np.moveaxis(reference, axis, 0)[2] = 3
    reference[3:5, 3:5, 3:5] = 7
    rows = [0, 1]
    affine = np.diag([0.0, 0, 0, 1])
    for own, mm in enumerate((-1.5, 0.8, 2.0)):
        affine[2 if own == axis else rows.pop(), own] = mm
    maps = (np.asarray(prediction, order=order), np.asarray(reference, order=order))
    found = evaluate_masks(*maps, affine, {"a": 1, "b": 2}, ignored_values=[7])
    turned = [np.moveaxis(each, axis, 0) for each in (prediction, reference)]
    counted = turned[1] != 7
    labelled = [bool(np.isin(section, (1, 2)).any()) for section in turned[1]]
    assert labelled.count(False) >= 4
    for score, value in zip(found, (1, 2), strict=True):
        p, r = ((each == value) & counted for each in turned)
        p, r = p[labelled], r[labelled]
        expected = 2 * (p & r).sum() / (p.sum() + r.sum())
        assert score.metrics["dice_labelled_slices"] == pytest.approx(expected)
        assert score.metrics["dice_labelled_slices"] > score.metrics["dice"]
        looked_at = counted[labelled]
        negative = looked_at & ~r
        specificity = (negative & ~p).sum() / negative.sum()
        assert score.metrics["specificity_labelled_slices"] == pytest.approx(specificity)
        assert score.metrics["sensitivity_labelled_slices"] == score.metrics["sensitivity"]
        counts = score.counts_labelled_slices
        assert counts.tp + counts.fp + counts.fn + counts.tn == looked_at.sum()


def test_the_squared_dice_of_masks_is_the_dice(maps):
    """Paper 002, equation 2: masks are their own squares."""
    (score, _) = evaluate_masks(*maps, SPACING, {"a": 1, "b": 2})
    y, found = ((each == 1).astype(float) for each in maps[::-1])
    squared = 2 * (y * found).sum() / ((y**2).sum() + (found**2).sum())
    assert score.metrics["dice"] == pytest.approx(squared)
