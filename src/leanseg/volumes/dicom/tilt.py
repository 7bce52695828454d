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

_ROUNDING = 1e-6  # of a pixel


def upright_grid(
    shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """The grid at right angles that holds all of a sheared one.

    Args:
        shape: Columns, rows and slices.
        affine: (4, 4) from (column, row, slice) to mm, its third column not along the normal.

    Returns:
        Shape and affine of the upright grid.
    """
    drift, low, high = _drift(shape, affine)
    row, column, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    straight = affine.copy()
    straight[:3, 2] = step - drift[0] * row - drift[1] * column
    straight[:3, 3] += low[0] * row + low[1] * column
    size = high - low + shape[:2]
    return (int(size[0]), int(size[1]), shape[2]), straight


def upright(
    slices: NDArray[Any],
    first: int,
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    outside: float,
) -> NDArray[Any]:
    """Resample sheared slices to an upright grid.

    Args:
        slices: (slice, row, column), some that follow one another.
        first: Index of the first of them.
        shape: Of the whole sheared grid, as `affine`: see `upright_grid`.
        affine: See there.
        outside: Value beyond the slices.

    Returns:
        The same slices of the upright grid, of the same type.
    """
    from scipy.ndimage import affine_transform

    drift, low, _ = _drift(shape, affine)
    (columns, rows, _), _ = upright_grid(shape, affine)
    result = np.empty((len(slices), rows, columns), slices.dtype)
    for n, image in enumerate(slices):
        shift = (drift * (first + n) - low)[::-1]
        # Whole pixels but for rounding are whole pixels.
        shift = np.where(np.abs(shift - np.rint(shift)) < _ROUNDING, np.rint(shift), shift)
        moved = affine_transform(
            image, np.ones(2), -shift, (rows, columns), np.float32, 1, "grid-constant", outside
        )
        result[n] = np.rint(moved) if image.dtype.kind == "i" else moved
    return result


def _drift(
    shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """How far each slice lies along its plane from the one before, in (columns, rows).

    Also the lowest and highest whole pixel that the slices drift to.
    """
    row, column, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    # Directions are only nearly at right angles, so both drifts are solved for together.
    drift = np.linalg.lstsq(np.stack([row, column], axis=1), step, rcond=None)[0]
    ends = np.stack([np.zeros(2), drift * (shape[2] - 1)])
    # Rounding must not add a line of pixels where the drift is a whole number.
    low = np.floor(ends.min(axis=0) + _ROUNDING).astype(np.int64)
    high = np.ceil(ends.max(axis=0) - _ROUNDING).astype(np.int64)
    return np.asarray(drift, dtype=np.float64), low, high
