"""The volume itself: what it says of its grid, and which grids it refuses."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.errors import GeometryError
from leanseg.volumes import Volume, require_finite
from leanseg.volumes.volume import squeezed_shape

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, -3.0, 30], [0, 0, 0, 1]])


def test_what_it_says():
    volume = Volume(np.zeros((3, 4, 5, 2)), AFFINE)
    assert volume.shape == (3, 4, 5)
    assert volume.n_channels == 2
    assert volume.spacing_mm == (1.5, 2.0, 3.0)
    assert volume.orientation == "ALI" == "".join(nib.aff2axcodes(AFFINE))
    assert Volume(np.zeros((3, 4, 5)), AFFINE).n_channels == 1


def test_another_array_on_the_same_grid():
    volume = Volume(np.zeros((3, 4, 5)), AFFINE, path=Path("a.nii"), header=nib.Nifti1Header())
    other = volume.with_array(np.ones((3, 4, 5), np.uint8))
    assert other.array.dtype == np.uint8
    assert (other.path, other.header) == (volume.path, volume.header)
    np.testing.assert_array_equal(other.affine, AFFINE)


def test_the_affine_is_a_copy():
    affine = AFFINE.copy()
    volume = Volume(np.zeros((3, 4, 5)), affine)
    affine[0, 3] = 99
    np.testing.assert_array_equal(volume.affine, AFFINE)


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((3, 4), AFFINE, "3-D volume"),
        ((3, 4, 5, 6, 7), AFFINE, "3-D volume"),
        ((3, 0, 5), AFFINE, "empty axis"),
        ((3, 4, 5), np.diag([1.0, 0, 1, 1]), "determinant zero"),
        ((3, 4, 5), np.full((4, 4), np.nan), "finite 4 x 4"),
        ((3, 4, 5), np.eye(3), "finite 4 x 4"),
    ],
)
def test_grids_that_are_refused(shape, affine, message):
    with pytest.raises(GeometryError, match=f"scan.nii: .*{message}"):
        Volume(np.zeros(shape), affine, path=Path("scan.nii"))


def test_finite_voxels_pass():
    require_finite(Volume(np.zeros((2, 2, 2), np.float32), np.eye(4)))
    require_finite(Volume(np.zeros((2, 2, 2, 3), np.int16), np.eye(4)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5, 6), (4, 5, 6)),
        ((4, 5, 1), (4, 5, 1)),
        ((4, 5, 6, 1), (4, 5, 6)),
        ((4, 5, 6, 2), (4, 5, 6, 2)),
        ((4, 5, 6, 1, 3), (4, 5, 6, 3)),
        ((4, 5, 6, 3, 1, 1), (4, 5, 6, 3)),
        ((4, 5, 1, 1), (4, 5, 1)),
    ],
)
def test_squeezed(shape, expected):
    assert squeezed_shape(shape, Path("x")) == expected


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 5), r"found shape \(4, 5\)"),
        ((4,), r"found shape \(4,\)"),
        ((4, 5, 6, 2, 3), "found shape"),
        ((4, 0, 6), "empty axis"),
        ((), "empty axis"),
        ((4, -3, 6), "empty axis"),
    ],
)
def test_not_a_volume(shape, message):
    with pytest.raises(GeometryError, match=message):
        squeezed_shape(shape, Path("x"))
