"""The sliding window: cut patches out of planes, and add them to planes.

A window of planes is a ring: plane p of an axis lies at index p modulo the number of planes held.
By numpy: next to a network's pass this is little, and numba takes 100 MB and most of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Planes of an output that are brought together in memory: a line of the cache.
TOGETHER = 16


def cut_tile(window: Floats, start: Sequence[int], n_planes: int, tile: Floats) -> None:
    """Fill a tile from a window of planes; zeros where it hangs over.

    Args:
        window: (depth, channel, i, j), a ring of planes.
        start: Where the tile begins along i, j and k; negative where it hangs over.
        n_planes: Length of the k axis.
        tile: (channel, i, j, k), filled.
    """
    depth, _, *plane = window.shape
    (i, i0), (j, j0), (k, _) = _inside(start, tile.shape[1:], (*plane, n_planes))
    tile[:] = 0
    for n in range(k.start, k.stop):
        tile[:, i, j, n] = window[(start[2] + n) % depth][:, i0, j0]


def add_tile(
    probabilities: Floats,
    weight: Floats,
    start: Sequence[int],
    n_planes: int,
    sums: Floats,
    weights: Floats,
) -> None:
    """Add a tile, weighted, to a window of planes.

    Args:
        probabilities: (output, i, j, k).
        weight: (k, i, j).
        start: As in `cut_tile`.
        n_planes: Length of the k axis.
        sums: (depth, output, i, j), a ring of planes, added to.
        weights: (depth, i, j), likewise.
    """
    depth, *plane = weights.shape
    (i, i0), (j, j0), (k, _) = _inside(start, probabilities.shape[1:], (*plane, n_planes))
    for first in range(k.start, k.stop, TOGETHER):
        numbers = range(first, min(first + TOGETHER, k.stop))
        for n in numbers:
            weights[(start[2] + n) % depth, i0, j0] += weight[n, i, j]
        for output, found in enumerate(probabilities):
            # What is together in memory along k, plane by plane.
            block = found[i, j, numbers.start : numbers.stop].transpose(2, 0, 1).copy()
            block *= weight[numbers.start : numbers.stop, i, j]
            for n, own in zip(numbers, block, strict=True):
                sums[(start[2] + n) % depth, output, i0, j0] += own


def _inside(
    start: Sequence[int], shape: Sequence[int], limits: Sequence[int]
) -> list[tuple[slice, slice]]:
    """Along each axis what of a tile lies within the limits: in the tile, and in the whole."""
    inside = []
    for begin, length, limit in zip(start, shape, limits, strict=True):
        first, stop = max(0, -begin), min(length, limit - begin)
        inside.append((slice(first, stop), slice(begin + first, begin + stop)))
    return inside
