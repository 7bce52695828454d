"""Scores on grids whose axes are not at right angles, against brute force in the world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from leanseg.evaluation import EvaluationSettings, evaluate_masks
from leanseg.evaluation.surfels import _facets, cell_codes
from leanseg.volumes import Volume

# As dcm2niix keeps a gantry tilt of 20 degrees.
TILTED = np.diag([-1.0, -1, 3, 1])
TILTED[1, 2] = 3 * np.tan(np.deg2rad(20))
masks = hnp.arrays(np.bool_, (5, 4, 6))


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any that is not nearly flat: turned, mirrored, scaled, sheared, or none of it."""
    matrix = draw(hnp.arrays(np.float64, (3, 3), elements=st.floats(-3, 3)))
    matrix[np.diag_indices(3)] += draw(st.sampled_from([-2.0, 2.0]))
    directions = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-9)
    assume(abs(np.linalg.det(directions)) > 0.1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, (10, -20, 30)
    return affine


def in_world(indices: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return indices @ affine[:3, :3].T + affine[:3, 3]


def surface(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return np.argwhere(padded ^ binary_erosion(padded)) - 1


def elements(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and areas of the surface elements, one triangle after another."""
    codes = cell_codes(np.pad(mask, 1))
    areas = np.zeros(256)
    for code, corners in zip(*_facets(), strict=True):
        a, b, c = in_world(corners, affine)
        areas[[code, 255 - code]] += np.linalg.norm(np.cross(b - a, c - a)) / 2
    cells = np.argwhere((codes > 0) & (codes < 255))
    return in_world(cells - 0.5, affine), areas[codes[tuple(cells.T)]]


@settings(max_examples=60, deadline=None)
@given(masks, masks, affines(), st.floats(0.1, 6), st.sampled_from("CF"))
def test_every_measure_is_taken_in_the_world(prediction, reference, affine, tolerance, order):
    assume(prediction.any() and reference.any())
    places, areas = zip(*(elements(m, affine) for m in (prediction, reference)), strict=True)
    between = cdist(*places)
    nearest = np.concatenate([between.min(axis=1), between.min(axis=0)])
    assume(np.abs(nearest - tolerance).min() > 1e-4)  # at a tie rounding would decide
    arrays = (np.array(m, np.uint8, order=order) for m in (prediction, reference))
    (score,) = evaluate_masks(
        *arrays, affine, {"a": 1}, settings=EvaluationSettings(surface_tolerance_mm=tolerance)
    )
    apart = cdist(*(in_world(surface(m), affine) for m in (prediction, reference)))
    directed = apart.min(axis=1), apart.min(axis=0)
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    expected = {
        "hausdorff_mm": max(d.max() for d in directed),
        "hausdorff95_mm": max(np.percentile(d, 95) for d in directed),
        "assd_mm": np.concatenate(directed).mean(),
        "surface_dice": np.concatenate(areas)[nearest <= tolerance].sum() / np.hstack(areas).sum(),
        "reference_ml": reference.sum() * voxel_ml,
        "prediction_ml": prediction.sum() * voxel_ml,
    }
    found = {name: score.metrics[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(affines(), st.tuples(*[st.integers(1, 9)] * 3))
def test_the_diagonal_is_the_largest_distance_between_corners(affine, shape):
    prediction, reference = np.zeros((2, *shape), np.uint8)
    prediction[0, 0, 0] = 1
    rule = EvaluationSettings(one_empty_distance="diagonal")
    (score,) = evaluate_masks(prediction, reference, affine, {"a": 1}, settings=rule)
    corners = in_world(np.argwhere(np.ones(shape)), affine)
    # Axes that are at right angles but for rounding are taken to be.
    assert score.metrics["hausdorff_mm"] == pytest.approx(cdist(corners, corners).max(), rel=1e-5)


def test_a_tilted_scan_as_reported():
    near, far, block = np.zeros((3, 30, 30, 12), np.uint8)
    near[10, 10, 2] = far[10, 16, 8] = 1
    block[5:15, 5:15, 2:9] = 1
    (score,) = evaluate_masks(far, near, TILTED, {"x": 1})
    assert score.metrics["hausdorff_mm"] == pytest.approx(18.0084456)
    (score,) = evaluate_masks(block, block, TILTED, {"x": 1})
    assert score.metrics["reference_ml"] == pytest.approx(2.1)


@settings(max_examples=40, deadline=None)
@given(masks, masks, st.tuples(*[st.floats(0.3, 5)] * 3))
def test_a_spacing_and_a_turned_grid_of_it_score_to_the_same_bits(prediction, reference, spacing):
    turned = np.diag([-spacing[0], spacing[1], -spacing[2], 1.0])[[1, 2, 0, 3]]
    shown = Volume(reference, turned).spacing_mm
    assert shown == pytest.approx(spacing)
    (first,), (second,) = (
        evaluate_masks(prediction, reference, grid, {"a": 1}) for grid in (shown, turned)
    )
    # Axial slices lie along another axis of the turned grid, and so do their pixels.
    apart = {f"{name}_labelled_slices": 0 for name in ("dice", "specificity")}
    apart["log_hausdorff_pixels"] = 0
    assert dict(first.metrics) | apart == dict(second.metrics) | apart
    assert first.note == second.note
