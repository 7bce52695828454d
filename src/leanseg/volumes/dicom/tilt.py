"""Gantry tilt: slices sheared against their normal, resampled to an upright grid.

A tilted gantry moves every slice along its plane against the one before. Slices stay parallel,
so each is shifted within its plane, by linear interpolation, until the way from slice to slice
is the normal. Spacing within slices stays, and so does the first slice; the grid grows so that
nothing is cut off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def upright(
    voxels: NDArray[Any], affine: NDArray[np.float64], outside: float
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Resample sheared slices to an upright grid.

    Args:
        voxels: (slice, row, column).
        affine: (4, 4) from (column, row, slice) to mm, its third column not along the normal.
        outside: Value beyond the slices.

    Returns:
        The voxels, of the same type, and the affine of a grid at right angles.
    """
    n_slices, rows, columns = voxels.shape
    row, column, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    # How far one slice lies along the plane from the one before: in pixels (column, row).
    drift = np.array([step @ row / (row @ row), step @ column / (column @ column)])
    ends = np.stack([np.zeros(2), drift * (n_slices - 1)])
    # Rounding must not add a line of pixels where the drift is a whole number.
    low = np.floor(ends.min(axis=0) + 1e-6).astype(int)
    high = np.ceil(ends.max(axis=0) - 1e-6).astype(int)
    size = high - low + (columns, rows)
    result = np.empty((n_slices, size[1], size[0]), voxels.dtype)
    for k in range(n_slices):
        result[k] = _shifted(voxels[k], drift * k - low, (size[1], size[0]), outside)
    straight = affine.copy()
    straight[:3, 2] = normal * (step @ normal)
    straight[:3, 3] += low[0] * row + low[1] * column
    return result, straight


def _shifted(
    image: NDArray[Any], shift: NDArray[np.float64], shape: tuple[int, int], outside: float
) -> NDArray[Any]:
    """An image moved by (columns, rows) pixels, none negative, onto a larger canvas."""
    whole = np.floor(shift + 1e-6).astype(int)
    part = np.clip(shift - whole, 0.0, 1.0).astype(np.float32)
    rows, columns = image.shape
    # One line more, so that what leaves at the end and enters at the start lies outside.
    canvas = np.full((shape[0] + 1, shape[1] + 1), outside, np.float32)
    canvas[whole[1] : whole[1] + rows, whole[0] : whole[0] + columns] = image
    for axis, weight in ((0, part[1]), (1, part[0])):
        if weight > 1e-6:
            before = np.roll(canvas, 1, axis=axis)
            canvas = canvas * (1 - weight) + before * weight
    moved = canvas[: shape[0], : shape[1]]
    return np.rint(moved) if image.dtype.kind == "i" else moved
