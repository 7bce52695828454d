"""Compiled loops behind the OBELISK layer on the CPU: numpy arrays in, numpy arrays filled.

A sample of a (depth, row, column) grid at one offset has the same depth for a whole plane of
the grid and the same row for a whole row of it. So a row of the grid is sampled by blending
four rows of the image once, which is plain vector arithmetic, and then interpolating along that
one blended row. Nothing larger than a tile of some rows of the grid is ever gathered: a tile is
sampled, multiplied by the weights of the 1x1x1 convolution, and forgotten. The gradients sample
it once more, and take the way back with the transposed steps.

Terms: a *cell* is the index of the image position below a sample, plus one, and a *part* how
far on towards the next it lies (0 to 1). Rows are kept with a zero in front and two behind, so
that samples outside the image read zeros: `row[cell]` and `row[cell + 1]` are the two taps.

The functions take ranges of tiles and release the interpreter lock; who calls them from several
threads gives each its own range and, for gradients, its own arrays to add to.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from leanseg.kernels.compiled import compiled

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int32]
# Coordinates along depth, rows and columns.
Grid = tuple[Floats, Floats, Floats]
# Cells (3, rows or columns of a tile), parts likewise, and a row (W + 3,) of zeros at first.
Scratch = tuple[Integers, Floats, Floats]

# Sums may be reordered and products fused; infinities and NaN keep their meaning.
REORDERED: Final = {"reassoc", "contract", "nsz", "arcp"}
ONE, ZERO, HALF, MINUS_ONE = np.float32(1), np.float32(0), np.float32(0.5), np.float32(-1)


@compiled()
def locate(coordinate: np.float32, length: int) -> tuple[np.int32, np.float32]:
    """Cell and part of a normalised coordinate (-1 to 1) along an axis of `length`.

    In the very steps and the precision of torch's `grid_sample` with aligned corners, so that
    both see a sample in the same cell.
    """
    position = (coordinate + ONE) * HALF * np.float32(length - 1)
    # Written so that NaN is outside; outside is a cell whose two taps are zero.
    inside = position >= MINUS_ONE and position < np.float32(length)
    held = position if inside else np.float32(length)
    below = np.floor(held)
    return np.int32(below) + np.int32(1), held - below


@compiled()
def place(
    offset: np.float32,
    grid: Floats,
    start: int,
    count: int,
    length: int,
    cells: Integers,
    parts: Floats,
    axis: int,
) -> None:
    """Cells and parts of `grid[start:start + count] + offset` along an axis of `length`."""
    for i in range(count):
        cells[axis, i], parts[axis, i] = locate(grid[start + i] + offset, length)


@compiled()
def taps(cell: int, part: np.float32, length: int) -> tuple[int, int, np.float32, np.float32]:
    """The two positions around a sample, held inside the image, and what they weigh there."""
    below = cell - 1
    near = ONE - part if below >= 0 and below < length else ZERO
    far = part if cell < length else ZERO
    return min(max(below, 0), length - 1), min(cell, length - 1), near, far


@compiled(fastmath=REORDERED)
def add_product(left: Floats, right: Floats, result: Floats) -> None:
    """Add left (O, M) @ right (M, T) to result (O, T); O and M are multiples of 4."""
    for o in range(0, left.shape[0], 4):
        r0, r1, r2, r3 = result[o], result[o + 1], result[o + 2], result[o + 3]
        for m in range(0, left.shape[1], 4):
            b0, b1, b2, b3 = right[m], right[m + 1], right[m + 2], right[m + 3]
            w00, w01, w02, w03 = left[o, m], left[o, m + 1], left[o, m + 2], left[o, m + 3]
            p = o + 1
            w10, w11, w12, w13 = left[p, m], left[p, m + 1], left[p, m + 2], left[p, m + 3]
            p = o + 2
            w20, w21, w22, w23 = left[p, m], left[p, m + 1], left[p, m + 2], left[p, m + 3]
            p = o + 3
            w30, w31, w32, w33 = left[p, m], left[p, m + 1], left[p, m + 2], left[p, m + 3]
            for t in range(right.shape[1]):
                r0[t] += w00 * b0[t] + w01 * b1[t] + w02 * b2[t] + w03 * b3[t]
                r1[t] += w10 * b0[t] + w11 * b1[t] + w12 * b2[t] + w13 * b3[t]
                r2[t] += w20 * b0[t] + w21 * b1[t] + w22 * b2[t] + w23 * b3[t]
                r3[t] += w30 * b0[t] + w31 * b1[t] + w32 * b2[t] + w33 * b3[t]


@compiled(fastmath=REORDERED)
def add_product_transposed(left: Floats, right: Floats, result: Floats) -> None:
    """Add left (O, T) @ right (M, T) transposed to result (O, M); O and M are multiples of 4."""
    for o in range(0, left.shape[0], 4):
        a0, a1, a2, a3 = left[o], left[o + 1], left[o + 2], left[o + 3]
        for m in range(0, right.shape[0], 2):
            b0, b1 = right[m], right[m + 1]
            s00 = s01 = s10 = s11 = s20 = s21 = s30 = s31 = ZERO
            for t in range(left.shape[1]):
                s00 += a0[t] * b0[t]
                s01 += a0[t] * b1[t]
                s10 += a1[t] * b0[t]
                s11 += a1[t] * b1[t]
                s20 += a2[t] * b0[t]
                s21 += a2[t] * b1[t]
                s30 += a3[t] * b0[t]
                s31 += a3[t] * b1[t]
            result[o, m] += s00
            result[o, m + 1] += s01
            result[o + 1, m] += s10
            result[o + 1, m + 1] += s11
            result[o + 2, m] += s20
            result[o + 2, m + 1] += s21
            result[o + 3, m] += s30
            result[o + 3, m + 1] += s31


@compiled(fastmath=REORDERED)
def sample_tile(
    image: Floats,
    offsets: Floats,
    grid: Grid,
    tile: tuple[int, int, int],
    channels: tuple[int, int],
    scratch: Scratch,
    maps: Floats,
) -> None:
    """Sample some rows of the grid at the offsets of some channels.

    Args:
        image: (C, D, H, W).
        offsets: (K, 1 or 2, 3), (column, row, depth); of a pair the second is subtracted.
        grid: Coordinates along depth, rows and columns.
        tile: Index along z, first and last row along y (exclusive).
        channels: First and last (exclusive) of the C * K maps, index channel * K + offset.
        scratch: Room to work in.
        maps: (at least that many, at least rows * columns), filled.
    """
    depth, height, width = image.shape[1], image.shape[2], image.shape[3]
    n_offsets, pair = offsets.shape[0], offsets.shape[1]
    plane, first, last = tile
    z, y, x = grid
    cells, parts, row = scratch
    columns = x.shape[0]
    for m in range(channels[0], channels[1]):
        c, k = m // n_offsets, m % n_offsets
        target = m - channels[0]
        for p in range(pair):
            place(offsets[k, p, 0], x, 0, columns, width, cells, parts, 0)
            place(offsets[k, p, 1], y, first, last - first, height, cells, parts, 1)
            place(offsets[k, p, 2], z, plane, 1, depth, cells, parts, 2)
            z0, z1, near, far = taps(cells[2, 0], parts[2, 0], depth)
            for r in range(last - first):
                y0, y1, above, under = taps(cells[1, r], parts[1, r], height)
                w00, w01, w10, w11 = near * above, near * under, far * above, far * under
                for i in range(width):
                    row[i + 1] = (
                        w00 * image[c, z0, y0, i]
                        + w01 * image[c, z0, y1, i]
                        + w10 * image[c, z1, y0, i]
                        + w11 * image[c, z1, y1, i]
                    )
                start = r * columns
                if p == 0:
                    for i in range(columns):
                        j = cells[0, i]
                        maps[target, start + i] = row[j] + parts[0, i] * (row[j + 1] - row[j])
                else:
                    for i in range(columns):
                        j = cells[0, i]
                        maps[target, start + i] -= row[j] + parts[0, i] * (row[j + 1] - row[j])


@compiled(fastmath=REORDERED)
def convolve(
    images: Floats,
    offsets: Floats,
    weight: Floats,
    grid: Grid,
    rows: int,
    begin: int,
    end: int,
    result: Floats,
) -> None:
    """Sample and convolve the tiles `begin` to `end` (exclusive) of `count_tiles`.

    Args:
        images: (B, C, D, H, W).
        offsets: (B, K, 1 or 2, 3).
        weight: (groups, O, M), both padded with zeros to multiples of 4.
        grid: Coordinates along depth, rows and columns.
        rows: Rows of the grid per tile.
        begin: First tile, of samples, then planes, then bands of rows.
        end: Last tile (exclusive).
        result: (B, groups, outputs of a group, planes, rows, columns), filled there.
    """
    width, n_offsets = images.shape[4], offsets.shape[1]
    planes, lines, columns = len(grid[0]), len(grid[1]), len(grid[2])
    groups = weight.shape[0]
    inputs = images.shape[1] * n_offsets // groups
    longest = max(columns, rows)
    cells, parts = np.zeros((3, longest), np.int32), np.zeros((3, longest), np.float32)
    scratch = cells, parts, np.zeros(width + 3, np.float32)
    maps = np.zeros((weight.shape[2], rows * columns), np.float32)
    sums = np.zeros((weight.shape[1], rows * columns), np.float32)
    bands = (lines + rows - 1) // rows
    for index in range(begin, end):
        b, plane = index // (planes * bands), index // bands % planes
        first = index % bands * rows
        last = min(first + rows, lines)
        tile = (plane, first, last)
        for g in range(groups):
            channels = (g * inputs, (g + 1) * inputs)
            sample_tile(images[b], offsets[b], grid, tile, channels, scratch, maps)
            sums[:] = ZERO
            add_product(weight[g], maps, sums)
            for o in range(result.shape[2]):
                for r in range(last - first):
                    for i in range(columns):
                        result[b, g, o, plane, first + r, i] = sums[o, r * columns + i]
