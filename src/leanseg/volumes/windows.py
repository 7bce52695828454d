"""Windows of slices, around what a network finds in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Window = tuple[slice, slice]
# A probability from here on is found (paper 003, section 3.2).
FOUND: Final = 0.5
# Two rounds of looking agree when what they find has this Dice (RSTN).
_AGREEMENT: Final = 0.95


def window_around(
    mask: NDArray[Any],
    margins: Sequence[tuple[int, int]],
    multiple: int = 1,
    least: tuple[int, int] = (1, 1),
) -> Window | None:
    """The smallest window of a slice that holds every non-zero pixel, widened, within the slice.

    Args:
        mask: (i, j).
        margins: Pixels that it is widened by before and behind, along i and along j.
        multiple: Its sides are widened further, evenly, to a multiple of this; where the slice is
            not so long, to all of it.
        least: Sides that it has at least.

    Returns:
        To index (i, j); None where the mask is empty.
    """
    found = []
    for axis, (before, behind) in enumerate(margins):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        if filled.size == 0:
            return None
        n = mask.shape[axis]
        start, stop = max(0, int(filled[0]) - before), min(n, int(filled[-1]) + 1 + behind)
        length = min(n, -(-max(stop - start, least[axis]) // multiple) * multiple)
        start = min(max(0, start - (length - (stop - start)) // 2), n - length)
        found.append(slice(start, start + length))
    return found[0], found[1]


def agree(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> bool:
    """Whether two masks are the same but for details: their Dice is 0.95 at least."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) >= _AGREEMENT * total
