"""The compiled loop of the activation study: everything that is counted, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without the interpreter lock, kept on disk where there is a folder to write to."""
    try:
        result: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder for its cache
        result = njit(nogil=True)(function)
    return result


@_compiled
def count_values(
    values: NDArray[np.float32],
    width: float,
    bins: NDArray[np.int64],
    near: float,
    floor: float,
    tolerance: float,
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> None:
    """Add what is counted of some values.

    Args:
        values: (n,), finite, within `width` times half the number of bins around zero.
        width: Of a bin, a power of two.
        bins: The histogram, changed in place; zero is the lower edge of its middle bin.
        near: How near to zero counts as such.
        floor: Of the activation function; NaN where it has none.
        tolerance: How near to the floor counts as there.
        counts: Values below zero, near zero, at the floor, changed in place.
        sums: Of the values and of their squares, changed in place.
    """
    middle = bins.size // 2
    per_width = 1 / width
    negative = near_zero = at_floor = 0
    total = squares = 0.0
    for n in range(values.size):
        value = float(values[n])
        bins[middle + int(np.floor(value * per_width))] += 1
        negative += int(value < 0)
        near_zero += int(abs(value) <= near)
        at_floor += int(abs(value - floor) <= tolerance)
        total += value
        squares += value * value
    counts[0] += negative
    counts[1] += near_zero
    counts[2] += at_floor
    sums[0] += total
    sums[1] += squares
