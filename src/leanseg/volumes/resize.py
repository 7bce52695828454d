"""Separable resizing of plain arrays, an axis at a time.

Pixels are areas with half-pixel centres: output pixel o of n_out lies at input coordinate
(o + 1/2) n_in / n_out - 1/2, so that both grids cover the same extent. Linear interpolation
uses a triangle that widens with the factor when shrinking (as Pillow's BILINEAR and PyTorch's
`antialias=True` do), normalised where it hangs over the edge. A ramp stays exact when enlarging
and when shrinking by a whole factor; between whole factors the sampled triangle displaces single
pixels by up to 0.09 of an input pixel, to either side alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["linear", "nearest"]


@lru_cache(maxsize=64)
def axis_weights(n_in: int, n_out: int, antialias: bool = True) -> NDArray[np.float32]:
    """Matrix of linear interpolation along one axis.

    Args:
        n_in: Number of input pixels.
        n_out: Number of output pixels.
        antialias: Widen the triangle when shrinking.

    Returns:
        (n_out, n_in), rows sum to 1, read-only (it is shared between calls).
    """
    scale = n_in / n_out
    width = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(n_out) + 0.5) * scale - 0.5
    centre = np.clip(centre, 0, n_in - 1) if width == 1.0 else centre
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(n_in) - centre[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    result = weights.astype(np.float32)
    result.setflags(write=False)
    return result


# Smaller weights of a spline are left out: a row has some 28 then.
_LEAST_WEIGHT = 1e-8


@lru_cache(maxsize=64)
def cubic_weights(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Matrix of interpolation by a cubic spline along one axis, its ends repeated.

    As `scipy.ndimage.zoom` with `mode="nearest"` and `grid_mode=True`, which is skimage's `resize`
    with `mode="edge"`.

    Args:
        n_in: Number of input pixels.
        n_out: Number of output pixels.

    Returns:
        (n_out, n_in), rows sum to 1, some weights negative; read-only.
    """
    from scipy import ndimage

    identity = np.eye(n_in)
    weights = ndimage.zoom(identity, (n_out / n_in, 1), order=3, mode="nearest", grid_mode=True)
    weights[np.abs(weights) < _LEAST_WEIGHT] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    result: NDArray[np.float32] = weights.astype(np.float32)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=64)
def nearest_indices(n_in: int, n_out: int) -> NDArray[np.intp]:
    """Input pixel nearest to each output pixel's centre: (n_out,), read-only.

    In integers, so that ties (always upwards) do not depend on rounding.
    """
    indices: NDArray[np.intp] = (2 * np.arange(n_out) + 1) * n_in // (2 * n_out)
    indices.setflags(write=False)
    return indices


def resize_array(
    array: NDArray[Any],
    shape: Sequence[int],
    interpolation: Interpolation = "linear",
    axes: Sequence[int] | None = None,
) -> NDArray[Any]:
    """Resize some axes of an array.

    Args:
        array: Of any dimension.
        shape: The wanted length of each axis in `axes`.
        interpolation: "linear" gives float32; "nearest" keeps the type, for label maps.
        axes: Default: the first `len(shape)`.

    Returns:
        The resized array; the array itself where there is nothing to do.

    Raises:
        ValueError: If a wanted length is below 1, or the axes do not fit.
    """
    wanted = dict(zip(range(len(shape)) if axes is None else axes, shape, strict=True))
    if min(shape) < 1 or not all(0 <= axis < array.ndim for axis in wanted):
        msg = f"cannot resize axes {tuple(wanted)} of shape {array.shape} to {tuple(shape)}"
        raise ValueError(msg)
    result = array.astype(np.float32, copy=False) if interpolation == "linear" else array
    # Shrinking first leaves less to do for the rest.
    for axis in sorted(wanted, key=lambda axis: wanted[axis] / array.shape[axis]):
        n_in, n_out = array.shape[axis], wanted[axis]
        if n_in == n_out:
            continue
        if interpolation == "nearest":
            result = np.take(result, nearest_indices(n_in, n_out), axis=axis)
        else:
            result = _resize_axis(result, axis, n_out)
    return result


def _resize_axis(array: NDArray[np.float32], axis: int, n_out: int) -> NDArray[np.float32]:
    from scipy.sparse import csr_array

    lines = np.moveaxis(array, axis, 0)
    # A row of weights is zero but for a few taps.
    weights = csr_array(axis_weights(len(lines), n_out))
    resized = weights @ lines.reshape(len(lines), -1)
    return np.moveaxis(resized.reshape(n_out, *lines.shape[1:]), 0, axis)
