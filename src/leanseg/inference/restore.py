"""From probabilities of some slices to classes in the scan's in-plane resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes import resize_slices


class Decider:
    """Resizes probabilities in-plane and compares them, one class at a time.

    Args:
        shape: Rows and columns of the probabilities.
        wanted: Rows and columns of the classes.
    """

    def __init__(self, shape: tuple[int, int], wanted: tuple[int, int]) -> None:
        self._wanted = wanted

    def decide(self, probabilities: NDArray[np.float32], out: NDArray[Any]) -> None:
        """Classes of probabilities (output, n, i, j), into `out` (n, rows, columns)."""
        best = resize_slices(probabilities[0], self._wanted)
        if len(probabilities) == 1:
            out[...] = best > np.float32(0.5)
            return
        out[...] = 0
        for number in range(1, len(probabilities)):
            other = resize_slices(probabilities[number], self._wanted)
            higher = other > best
            np.copyto(out, out.dtype.type(number), where=higher)
            np.copyto(best, other, where=higher)
