"""Cropping and pasting back are exact."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.errors import GeometryError
from leanseg.volumes import Box, Volume, bounding_box, crop, paste

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
    found = bounding_box(mask, margin_voxels=margin)
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
