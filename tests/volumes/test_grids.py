"""Reorienting moves axes, never voxels; cropping and pasting back are exact."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leanseg.errors import GeometryError
from leanseg.volumes import (
    Box,
    Volume,
    axis_view,
    bounding_box,
    crop,
    paste,
    reorient,
    reoriented_view,
)
from leanseg.volumes.axes import axis_codes

CODES = ["".join(c) for axes in permutations(("LR", "PA", "IS")) for c in product(*axes)]


def world_of(array, affine):
    """World position of every voxel value (values are unique), rows sorted by value."""
    indices = np.stack(np.meshgrid(*map(np.arange, array.shape), indexing="ij"), -1).reshape(-1, 3)
    order = np.argsort(array.reshape(-1))
    return (indices @ affine[:3, :3].T + affine[:3, 3])[order]


def oblique_affine(seed):
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.4, 5.0, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine


def volume_of(affine, shape=(3, 4, 5)):
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine)


def test_there_are_48_codes():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_keeps_world_positions(codes):
    for seed in range(4):
        volume = volume_of(oblique_affine(seed))
        moved = reorient(volume, codes)
        assert moved.orientation == codes
        assert np.shares_memory(moved.array, volume.array)
        np.testing.assert_allclose(
            world_of(moved.array, moved.affine), world_of(volume.array, volume.affine), atol=1e-9
        )
        back = reorient(moved, volume.orientation)
        np.testing.assert_array_equal(back.array, volume.array)
        np.testing.assert_allclose(back.affine, volume.affine, rtol=0, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.sampled_from(CODES), st.tuples(*[st.integers(1, 5)] * 3))
@settings(deadline=None, max_examples=50)
def test_agrees_with_nibabel(seed, codes, shape):
    volume = volume_of(oblique_affine(seed), shape)
    image = nib.Nifti1Image(volume.array, volume.affine)
    transform = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(volume.affine), nib.orientations.axcodes2ornt(codes)
    )
    expected = image.as_reoriented(transform)
    moved = reorient(volume, codes)
    np.testing.assert_array_equal(moved.array, np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(moved.affine, expected.affine, atol=1e-9)


@given(st.sampled_from(CODES), st.sampled_from(CODES))
@settings(deadline=None)
def test_writing_through_a_view_fills_the_native_array(native_codes, network_codes):
    native = np.zeros((2, 3, 4), np.uint8)
    view = reoriented_view(native, native_codes, network_codes)
    result = np.arange(24, dtype=np.uint8).reshape(view.shape)
    view[...] = result
    np.testing.assert_array_equal(reoriented_view(native, native_codes, network_codes), result)
    np.testing.assert_array_equal(reoriented_view(result, network_codes, native_codes), native)


def test_known_case_by_hand():
    array = np.arange(6).reshape(1, 2, 3)
    view, affine = axis_view(array, np.diag([2.0, 3.0, 4.0, 1.0]), "SPR")
    assert view.shape == (3, 2, 1)
    assert view[0, 0, 0] == array[0, 1, 0]
    np.testing.assert_array_equal(affine, [[0, 0, 2, 0], [0, -3, 0, 3], [4, 0, 0, 0], [0, 0, 0, 1]])


def test_channels_stay_last():
    volume = Volume(np.zeros((2, 3, 4, 7)), np.eye(4))
    assert reorient(volume, "SAR").array.shape == (4, 3, 2, 7)


def test_header_is_kept_only_where_it_is_true():
    header = nib.Nifti1Header()
    volume = Volume(np.zeros((2, 3, 4)), np.eye(4), header=header)
    assert reorient(volume, "RAS") is volume
    assert reorient(volume, "LPS").header is None


@pytest.mark.parametrize("codes", ["RAX", "RLS", "RA", "ras", "RASS", ""])
def test_a_wrong_code_is_named(codes):
    with pytest.raises(GeometryError, match="none of the 48 codes"):
        reorient(volume_of(np.eye(4)), codes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.sampled_from([0.0, 0.3, 1.0]))
def test_axes_are_nibabels(numbers: list[float], blend: float) -> None:
    """From axes along the patient's to any, sheared too."""
    rng = np.random.default_rng(abs(hash(tuple(numbers))) % 2**32)
    aligned = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    matrix = (1 - blend) * aligned + blend * np.array(numbers).reshape(3, 3)
    matrix = matrix @ np.diag(rng.uniform(0.3, 5, 3))
    spacing = np.linalg.norm(matrix, axis=0)
    assume(spacing.min() > 1e-3 and abs(np.linalg.det(matrix / spacing)) > 1e-4)
    affine = np.eye(4)
    affine[:3, :3] = matrix
    assert axis_codes(affine) == "".join(nib.aff2axcodes(affine))


AFFINE = np.array([[-0.7, 0.1, 0, 90], [0.05, -0.8, 0.2, 70], [0, 0.1, 2.5, -400], [0, 0, 0, 1.0]])


@st.composite
def boxes(draw):
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    return shape, Box(start, stop)


@given(boxes(), st.booleans())
@settings(deadline=None)
def test_crop_and_paste(shape_and_box, with_channels):
    shape, box = shape_and_box
    full_shape = (*shape, 2) if with_channels else shape
    array = np.arange(1, np.prod(full_shape) + 1, dtype=np.int32).reshape(full_shape)
    volume = Volume(array, AFFINE, header=nib.Nifti1Header())
    part = crop(volume, box)
    assert part.shape == box.shape
    assert np.shares_memory(part.array, array)
    assert part.header is None
    first = nib.affines.apply_affine(AFFINE, box.start)
    np.testing.assert_allclose(part.affine[:3, 3], first, atol=1e-12)
    np.testing.assert_array_equal(part.affine[:3, :3], AFFINE[:3, :3])

    back = paste(part, box, volume, outside=-5)
    inside = np.zeros(shape, bool)
    inside[box.slices] = True
    np.testing.assert_array_equal(back.array[inside], array[inside])
    assert (back.array[~inside] == -5).all()
    np.testing.assert_array_equal(back.affine, AFFINE)
    assert back.header is volume.header


@given(boxes(), st.integers(0, 3))
@settings(deadline=None)
def test_bounding_box_is_the_box(shape_and_box, margin):
    shape, box = shape_and_box
    mask = np.zeros(shape, np.uint8)
    mask[box.start] = mask[tuple(b - 1 for b in box.stop)] = 3
    found = bounding_box(mask, margin_mm=margin)
    assert found == Box(
        tuple(max(0, a - margin) for a in box.start),
        tuple(min(n, b + margin) for b, n in zip(box.stop, shape, strict=True)),
    )


def test_margin_in_millimetres_is_rounded_up():
    mask = np.zeros((20, 20, 20), bool)
    mask[10, 10, 10] = True
    found = bounding_box(mask, margin_mm=3.0, spacing_mm=(1.0, 0.6, 2.0))
    assert found == Box((7, 5, 8), (14, 16, 13))


def test_empty_mask_has_no_box():
    assert bounding_box(np.zeros((3, 3, 3))) is None


def test_boxes_that_do_not_fit():
    volume = Volume(np.zeros((4, 4, 4)), np.eye(4))
    with pytest.raises(GeometryError, match="empty"):
        Box((0, 0, 2), (1, 1, 2))
    with pytest.raises(GeometryError, match="before voxel 0"):
        Box((0, -1, 0), (1, 1, 2))
    with pytest.raises(GeometryError, match=r"reaches past the grid \(4, 4, 4\)"):
        crop(volume, Box((0, 0, 0), (4, 5, 4)))
    with pytest.raises(GeometryError, match="does not fill a box"):
        paste(volume, Box((0, 0, 0), (2, 2, 2)), volume)
