"""The OBELISK layer of paper 004 on a regular grid, forward, without PyTorch.

The compiled loops are in `leanseg.kernels.sparse_sampling`; here they get their arrays and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Grid = tuple[Floats, Floats, Floats]

# Positions of the sampling grid that are sampled, multiplied and forgotten at a time: the maps of
# one group of 256 channels then fit a core's cache of the second level.
TILE: Final = 432


def spanning_grid(size: Sequence[int]) -> Grid:
    """Coordinates (depth, rows, columns) of a grid from corner to corner of the image.

    -1 to 1 in equal steps; an axis with a single position has it in the centre.
    """
    z, y, x = (
        (2 * np.arange(length) - (length - 1)).astype(np.float32) / np.float32(max(length - 1, 1))
        for length in size
    )
    return z, y, x


def sample_and_convolve(
    images: Floats,
    offsets: Floats,
    weight: Floats,
    grid: Grid,
    *,
    groups: int = 1,
    threads: int = 1,
) -> Floats:
    """Sample images on a grid at offsets, trilinearly, and convolve the samples 1 x 1 x 1.

    Coordinates are (column, row, depth), -1 at the centre of the first voxel of an axis and 1 at
    that of the last; zeros are read outside the image.

    Args:
        images: (B, C, D, H, W).
        offsets: (B or 1, K, 1 or 2, 3); of a pair the second sample is subtracted.
        weight: (O, C * K / groups); map `c * K + k` is channel c at offset k.
        grid: Coordinates along depth, rows and columns.
        groups: Of the convolution.
        threads: How many to work in.

    Returns:
        (B, O, len(grid[0]), len(grid[1]), len(grid[2])).
    """
    from leanseg.kernels.sparse_sampling import convolve  # numba takes its time to import

    shape = (len(images), weight.shape[0], *(len(axis) for axis in grid))
    result = np.empty(shape, dtype=np.float32)
    rows, n_tiles = tiles(len(images), grid)
    arrays = [
        np.ascontiguousarray(images),
        np.ascontiguousarray(np.broadcast_to(offsets, (len(images), *offsets.shape[1:]))),
        grouped(weight, groups),
        grid,
    ]
    filled = result.reshape(len(images), groups, -1, *shape[2:])

    def work(_: int, begin: int, end: int) -> None:
        convolve(*arrays, rows, begin, end, filled)

    # Several shares per thread: one that is held up does not hold up all.
    in_threads(work, n_tiles, min(n_tiles, 4 * threads), threads)
    return result


def grouped(weight: Floats, groups: int) -> Floats:
    """(O, M) to (groups, O / groups, M), padded with zeros to multiples of 4."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    padded = np.zeros((groups, outputs + -outputs % 4, inputs + -inputs % 4), dtype=np.float32)
    padded[:, :outputs, :inputs] = weight.reshape(groups, outputs, inputs)
    return padded


def tiles(n_images: int, grid: Grid) -> tuple[int, int]:
    """Rows of the grid per tile, and the number of tiles."""
    planes, lines, columns = (len(axis) for axis in grid)
    rows = max(1, min(lines, TILE // max(1, columns)))
    return rows, n_images * planes * -(-lines // rows)


def in_threads(work: Callable[[int, int, int], Any], pieces: int, shares: int, most: int) -> None:
    """Call `work(share, begin, end)` for equal shares of `pieces`, in at most that many threads.

    Threads of our own: numba's may be used from one thread at a time only, and would not keep to
    the number of threads that the user set.
    """
    threads = min(most, shares)
    if threads <= 1:
        work(0, 0, pieces)
        return
    bounds = [pieces * share // shares for share in range(shares + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(shares), bounds[:-1], bounds[1:]))
