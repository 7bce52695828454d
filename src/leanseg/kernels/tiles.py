"""The sliding window: cut patches out of planes, and add them to planes.

A window of planes is a ring: plane p of an axis lies at index p modulo the number of planes held.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanseg.kernels.compiled import compiled

Floats = NDArray[np.float32]


@compiled()
def cut_tile(window: Floats, i0: int, j0: int, k0: int, n_planes: int, tile: Floats) -> None:
    """Fill a tile from a window of planes; zeros where it hangs over.

    Args:
        window: (depth, channel, i, j), a ring of planes.
        i0: Where the tile begins along i; negative where it hangs over.
        j0: Along j.
        k0: Along k.
        n_planes: Length of the k axis.
        tile: (channel, i, j, k), filled.
    """
    depth, channels, rows, columns = window.shape
    tile[:] = 0
    k_first, k_stop = max(0, -k0), min(tile.shape[3], n_planes - k0)
    j_first, j_stop = max(0, -j0), min(tile.shape[2], columns - j0)
    for c in range(channels):
        for i in range(max(0, -i0), min(tile.shape[1], rows - i0)):
            for k in range(k_first, k_stop):
                row = window[(k0 + k) % depth, c, i0 + i]
                for j in range(j_first, j_stop):
                    tile[c, i, j, k] = row[j0 + j]


@compiled()
def add_tile(
    probabilities: Floats,
    weight: Floats,
    i0: int,
    j0: int,
    k0: int,
    n_planes: int,
    sums: Floats,
    weights: Floats,
) -> None:
    """Add a tile, weighted, to a window of planes.

    Args:
        probabilities: (output, i, j, k).
        weight: (i, k, j), so that it is read as it lies in memory.
        i0: Where the tile begins along i; negative where it hangs over.
        j0: Along j.
        k0: Along k.
        n_planes: Length of the k axis.
        sums: (depth, output, i, j), a ring of planes, added to.
        weights: (depth, i, j), likewise.
    """
    depth, outputs, rows, columns = sums.shape
    k_first, k_stop = max(0, -k0), min(weight.shape[1], n_planes - k0)
    j_first, j_stop = max(0, -j0), min(weight.shape[2], columns - j0)
    for i in range(max(0, -i0), min(weight.shape[0], rows - i0)):
        for k in range(k_first, k_stop):
            row, own = weights[(k0 + k) % depth, i0 + i], weight[i, k]
            for j in range(j_first, j_stop):
                row[j0 + j] += own[j]
        for c in range(outputs):
            for k in range(k_first, k_stop):
                row, own = sums[(k0 + k) % depth, c, i0 + i], weight[i, k]
                for j in range(j_first, j_stop):
                    row[j0 + j] += own[j] * probabilities[c, i, j, k]
