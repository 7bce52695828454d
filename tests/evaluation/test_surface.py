from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from leanseg.evaluation.surface import crop_to_surfaces, surface_voxels
from surface_metrics import surface_distances

# The oracles' own use of old names of scipy and MONAI.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning"),
]

masks = hnp.arrays(np.bool_, (5, 4, 6))
spacings = st.tuples(*[st.floats(0.3, 5.0)] * 3)


def blobs(rng, shape=(22, 25, 28), threshold=0.02):
    """Two smooth, partly overlapping random shapes, away from each other in places."""
    fields = [gaussian_filter(rng.standard_normal(shape), 2.5) for _ in range(2)]
    return fields[0] > threshold, 0.7 * fields[0] + 0.7 * fields[1] > threshold


def cube(shape, start, side):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(s, s + side) for s in start)] = True
    return mask


def test_surface_of_a_cube():
    mask = cube((9, 9, 9), (2, 2, 2), 4)
    surface = surface_voxels(mask)
    assert surface.sum() == 4**3 - 2**3
    assert not surface[3:5, 3:5, 3:5].any()


def test_edge_neighbours_do_not_make_a_surface():
    mask = np.ones((3, 3, 3), bool)
    mask[0, 0] = False  # touches the centre voxel by an edge only
    assert not surface_voxels(mask)[1, 1, 1]


@given(masks)
@settings(max_examples=50, deadline=None)
def test_surface_voxels_equal_erosion(mask):
    padded = np.pad(mask, 1)
    np.testing.assert_array_equal(surface_voxels(padded), padded ^ binary_erosion(padded))


def test_shifted_cubes_by_hand():
    # Two 4-voxel cubes, 3 voxels of 2 mm apart along the second axis.
    a, b = (cube((8, 14, 8), (2, start, 2), 4) for start in (2, 5))
    distances = surface_distances(a, b, (1.0, 2.0, 1.5))
    assert distances.hausdorff_mm == pytest.approx(6.0)
    # Of the 56 surface voxels, those of the last layers coincide or are nearer across.
    everything = np.concatenate(
        [distances.prediction_to_reference, distances.reference_to_prediction]
    )
    assert everything.size == 112
    assert distances.assd_mm == pytest.approx(everything.mean())


def test_single_voxels_by_hand():
    a, b = np.zeros((2, 5, 6, 7), bool)
    a[1, 1, 1], b[4, 5, 1] = True, True
    distances = surface_distances(a, b, (1.0, 1.0, 9.0))
    for value in (distances.hausdorff_mm, distances.hausdorff95_mm, distances.assd_mm):
        assert value == pytest.approx(5.0)


def test_directed_percentiles_by_hand():
    # Prediction: a row of 21 voxels; reference: its first voxel. Distances 0..20 and 0.
    prediction, reference = np.zeros((2, 23, 3, 3), bool)
    prediction[1:22, 1, 1], reference[1, 1, 1] = True, True
    distances = surface_distances(prediction, reference, (0.5, 1, 1))
    np.testing.assert_allclose(np.sort(distances.prediction_to_reference), np.arange(21) / 2)
    assert distances.reference_to_prediction.tolist() == [0]
    assert distances.hausdorff95_mm == pytest.approx(19 / 2)
    assert distances.assd_mm == pytest.approx((210 / 2) / 22)


def test_distances_equal_the_distance_transform(rng):
    prediction, reference = blobs(rng)
    spacing = (2.5, 0.7, 1.1)
    distances = surface_distances(prediction, reference, spacing)
    surfaces = [m ^ binary_erosion(m) for m in (prediction, reference)]
    expected = distance_transform_edt(~surfaces[1], sampling=spacing)[surfaces[0]]
    np.testing.assert_allclose(np.sort(distances.prediction_to_reference), np.sort(expected))
    expected = distance_transform_edt(~surfaces[0], sampling=spacing)[surfaces[1]]
    np.testing.assert_allclose(np.sort(distances.reference_to_prediction), np.sort(expected))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.3, 0.8, 0.6)])
def test_equals_monai(rng, spacing):
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    prediction, reference = blobs(rng)
    distances = surface_distances(prediction, reference, spacing)
    tensors = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
    options = {"include_background": True, "spacing": spacing}
    assert distances.hausdorff_mm == pytest.approx(
        float(compute_hausdorff_distance(*tensors, **options)), rel=1e-5
    )
    assert distances.hausdorff95_mm == pytest.approx(
        float(compute_hausdorff_distance(*tensors, percentile=95, **options)), rel=1e-5
    )
    assert distances.assd_mm == pytest.approx(
        float(compute_average_surface_distance(*tensors, symmetric=True, **options)), rel=1e-5
    )


def test_hausdorff_equals_simpleitk_where_the_masks_are_thin(rng):
    # SimpleITK measures from every voxel of a mask, not from its surface; on a mask that is all
    # surface the two agree.
    prediction, reference = rng.random((2, 14, 15, 16)) < 0.02
    images = [SimpleITK.GetImageFromArray(m.view(np.uint8)) for m in (prediction, reference)]
    for image in images:
        image.SetSpacing((0.6, 0.8, 3.3))  # x, y, z: arrays come as z, y, x
    measured = SimpleITK.HausdorffDistanceImageFilter()
    measured.Execute(*images)
    distances = surface_distances(prediction, reference, (3.3, 0.8, 0.6))
    assert distances.hausdorff_mm == pytest.approx(measured.GetHausdorffDistance(), rel=1e-5)


def test_percentile_is_monais_and_differs_from_surface_distance():
    """The same pair, two public libraries, two numbers: ours is the one it names."""
    import surface_distance
    from monai.metrics import compute_hausdorff_distance

    prediction, reference = blobs(np.random.default_rng(3))
    spacing = (2.0, 1.0, 1.0)
    ours = surface_distances(prediction, reference, spacing).hausdorff95_mm
    tensors = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
    monai = float(
        compute_hausdorff_distance(
            *tensors, include_background=True, percentile=95, spacing=spacing
        )
    )
    found = surface_distance.compute_surface_distances(reference, prediction, spacing)
    deepmind = surface_distance.compute_robust_hausdorff(found, 95)
    assert ours == pytest.approx(monai, rel=1e-5)
    assert abs(monai - deepmind) > 0.05


@given(masks, masks, spacings)
@settings(max_examples=50, deadline=None)
def test_symmetric_and_ordered(a, b, spacing):
    assume(a.any() and b.any())
    forward, backward = surface_distances(a, b, spacing), surface_distances(b, a, spacing)
    for name in ("hausdorff_mm", "hausdorff95_mm", "assd_mm"):
        assert getattr(forward, name) == pytest.approx(getattr(backward, name))
    assert 0 <= forward.hausdorff95_mm <= forward.hausdorff_mm + 1e-12
    assert 0 <= forward.assd_mm <= forward.hausdorff_mm + 1e-12


@given(masks, spacings)
@settings(max_examples=30, deadline=None)
def test_identical_masks_are_at_distance_zero(mask, spacing):
    assume(mask.any())
    assert surface_distances(mask, mask, spacing).hausdorff_mm == 0


@given(masks, masks, spacings, st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_distances_scale_with_the_spacing(a, b, spacing, factor):
    assume(a.any() and b.any())
    scaled = surface_distances(a, b, tuple(factor * s for s in spacing))
    plain = surface_distances(a, b, spacing)
    assert scaled.assd_mm == pytest.approx(factor * plain.assd_mm)
    assert scaled.hausdorff95_mm == pytest.approx(factor * plain.hausdorff95_mm)


@given(st.tuples(*[st.integers(0, 4)] * 3), spacings)
@settings(max_examples=40, deadline=None)
def test_a_translated_voxel_is_as_far_as_its_translation(shift, spacing):
    a, b = np.zeros((2, 7, 7, 7), bool)
    a[1, 1, 1] = True
    b[tuple(1 + s for s in shift)] = True
    expected = np.linalg.norm(np.array(shift) * spacing)
    assert surface_distances(a, b, spacing).hausdorff_mm == pytest.approx(expected)


@given(masks, masks, spacings, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=40, deadline=None)
def test_independent_of_axis_order_and_direction(a, b, spacing, axes, flips):
    assume(a.any() and b.any())
    step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turned = [m.transpose(axes)[step] for m in (a, b)]
    expected = surface_distances(a, b, spacing)
    actual = surface_distances(*turned, tuple(spacing[axis] for axis in axes))
    assert actual.assd_mm == pytest.approx(expected.assd_mm)
    assert actual.hausdorff95_mm == pytest.approx(expected.hausdorff95_mm)


def test_one_empty_mask_has_no_distances():
    mask = cube((5, 5, 5), (1, 1, 1), 2)
    empty = np.zeros_like(mask)
    assert surface_distances(mask, empty, (1, 1, 1)) is None
    assert surface_distances(empty, mask, (1, 1, 1)) is None
    assert surface_distances(empty, empty, (1, 1, 1)) is None


def test_scan_border_decides_whether_a_cut_face_is_surface():
    mask = np.zeros((6, 8, 8), bool)
    mask[:3, 2:6, 2:6] = True  # leaves the scan through its first face
    closed = crop_to_surfaces(mask, mask, "surface")[0]
    opened = crop_to_surfaces(mask, mask, "open")[0]
    inside = 4 * 4 * 3 - 2 * 2 * 1
    assert surface_voxels(closed).sum() == inside
    assert surface_voxels(opened).sum() == inside - 2 * 2
    full = np.ones((4, 4, 4), bool)
    assert surface_distances(full, full, (1, 1, 1), "open") is None
    assert surface_distances(full, full, (1, 1, 1), "surface").hausdorff_mm == 0


def test_a_single_slice_is_a_volume_too():
    a, b = np.zeros((2, 9, 9, 1), bool)
    a[2:5, 2:5], b[2:5, 4:7] = True, True
    assert surface_distances(a, b, (1, 1.5, 5)).hausdorff_mm == pytest.approx(3.0)
    opened = surface_distances(a, b, (1, 1.5, 5), "open")
    assert opened.prediction_to_reference.size == 8
