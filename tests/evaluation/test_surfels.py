from __future__ import annotations

import numpy as np
import pytest
import surface_distance
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from surface_distance import lookup_tables

from leanseg.evaluation.surfels import cell_areas_mm2, cell_codes
from surface_metrics import surface_dice

# The oracles' own use of old names of scipy and MONAI.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning"),
]

masks = hnp.arrays(np.bool_, (5, 4, 6))
spacings = st.tuples(*[st.floats(0.3, 5.0)] * 3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.9, 2.3), (3.0, 0.5, 1.1)])
def test_areas_of_all_cells_equal_surface_distance(spacing):
    kernel = np.array(lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL).ravel()
    theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    ours = cell_areas_mm2(np.diag(spacing))
    for code in range(256):
        own_code = sum(1 << corner for corner in range(8) if code & int(kernel[corner]))
        assert ours[own_code] == pytest.approx(theirs[code], abs=1e-12)


def test_areas_by_hand():
    areas = cell_areas_mm2(np.diag((1.0, 2.0, 3.0)))
    assert areas[0] == areas[255] == 0
    # One filled corner: a triangle through the midpoints of three edges.
    normal = np.cross([-0.5, 1.0, 0], [-0.5, 0, 1.5])
    assert areas[1] == pytest.approx(np.linalg.norm(normal) / 2)
    # Corners with x = 0 filled: a flat 2 x 3 mm face.
    assert areas[0b00001111] == pytest.approx(6.0)


def test_codes_by_hand():
    mask = np.zeros((3, 2, 2), bool)
    mask[1, 0, 1] = True
    np.testing.assert_array_equal(cell_codes(mask), [[[1 << 5]], [[1 << 1]]])


@given(masks, masks, spacings, st.floats(0, 6))
@settings(max_examples=80, deadline=None)
def test_equals_surface_distance(prediction, reference, spacing, tolerance):
    # surface-distance 0.1 fails on an empty mask with NumPy 2.
    assume(prediction.any() and reference.any())
    found = surface_distance.compute_surface_distances(reference, prediction, spacing)
    distances = np.concatenate([found["distances_gt_to_pred"], found["distances_pred_to_gt"]])
    # At a tie the rounding of either side would decide.
    assume(np.abs(distances - tolerance).min() > 1e-4)
    expected = surface_distance.compute_surface_dice_at_tolerance(found, tolerance)
    assert surface_dice(prediction, reference, spacing, tolerance) == pytest.approx(expected)


def test_equals_surface_distance_and_monai_on_smooth_shapes(rng):
    import torch
    from monai.metrics import compute_surface_dice

    fields = [gaussian_filter(rng.standard_normal((24, 30, 28)), 3) for _ in range(2)]
    prediction, reference = fields[0] > 0, 0.9 * fields[0] + 0.3 * fields[1] > 0
    spacing, tolerance = (2.5, 0.8, 0.9), 1.3
    ours = surface_dice(prediction, reference, spacing, tolerance)
    found = surface_distance.compute_surface_distances(reference, prediction, spacing)
    expected = surface_distance.compute_surface_dice_at_tolerance(found, tolerance)
    assert 0.3 < ours < 0.99
    assert ours == pytest.approx(expected, rel=1e-12)
    tensors = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
    monai = compute_surface_dice(
        *tensors, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
    )
    assert ours == pytest.approx(float(monai), rel=1e-5)


def test_shifted_slabs_by_hand():
    # Slabs across the whole scan: with an open border only two flat faces each remain.
    a, b = np.zeros((2, 12, 4, 5), bool)
    a[3:7], b[3:9] = True, True
    spacing = (1.5, 1.0, 1.0)
    # First faces coincide, last ones are 2 voxels = 3 mm apart.
    assert surface_dice(a, b, spacing, 2.9, "open") == pytest.approx(0.5)
    assert surface_dice(a, b, spacing, 3.0, "open") == pytest.approx(1.0)


def test_a_spacing_in_single_precision_does_not_decide_a_tie():
    a, b = np.zeros((2, 12, 4, 5), bool)
    a[3:7], b[3:8] = True, True
    spacing = (float(np.float32(0.1)), 1.0, 1.0)  # a little more than 0.1
    assert surface_dice(a, b, spacing, 0.1, "open") == 1.0


@given(masks, masks, spacings, st.floats(0, 6))
@settings(max_examples=40, deadline=None)
def test_symmetric_bounded_and_growing_with_tolerance(a, b, spacing, tolerance):
    assume(a.any() or b.any())
    value = surface_dice(a, b, spacing, tolerance)
    assert 0 <= value <= 1
    assert surface_dice(b, a, spacing, tolerance) == pytest.approx(value)
    assert surface_dice(a, b, spacing, tolerance + 1) >= value - 1e-12
    assert surface_dice(a, a, spacing, tolerance) == (1.0 if a.any() else None)


def test_empty_masks():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    empty = np.zeros_like(mask)
    assert surface_dice(mask, empty, (1, 1, 1), 1.0) == 0
    assert surface_dice(empty, mask, (1, 1, 1), 1.0) == 0
    assert surface_dice(empty, empty, (1, 1, 1), 1.0) is None
