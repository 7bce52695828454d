"""NaN and infinite voxels are counted and named; shapes are squeezed sensibly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanseg.errors import GeometryError, LeansegError
from leanseg.volumes import Volume, require_finite
from leanseg.volumes.checks import squeezed_shape


def test_nan_voxels_are_counted():
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 3] = array[0, 0, 5] = np.nan
    array[3, 3, 3] = -np.inf
    with pytest.raises(LeansegError, match=r"scan\.nii: 2 NaN and 1 infinite of 120 voxels"):
        require_finite(Volume(array, np.eye(4), path=Path("scan.nii")))


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
        ((4, 5), "found a 2-D image"),
        ((4,), "found a 1-D image"),
        ((4, 5, 6, 2, 3), "found a 5-D image"),
        ((4, 0, 6), "empty axis"),
        ((), "empty axis"),
        ((4, -3, 6), "empty axis"),
    ],
)
def test_not_a_volume(shape, message):
    with pytest.raises(GeometryError, match=message):
        squeezed_shape(shape, Path("x"))
