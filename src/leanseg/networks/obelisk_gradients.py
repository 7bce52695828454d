"""Compiled loops for the gradients of the OBELISK layer on the CPU (`sparse_sampling`).

The gradient of a sampled row of the grid is spread along the columns onto one row as long as
the image's, with the transposed interpolation. The product of that row with each of the four
image rows that had been blended gives the gradients along depth and rows, and added to them it
is the gradient of the image.
"""

from __future__ import annotations

import numpy as np

from leanseg.kernels.compiled import compiled
from leanseg.kernels.sparse_sampling import (
    ONE,
    REORDERED,
    ZERO,
    Doubles,
    Floats,
    Grid,
    Scratch,
    add_product,
    add_product_transposed,
    place,
    taps,
)


@compiled(fastmath=REORDERED)
def add_row(image: Floats, c: int, z: int, y: int, weight: np.float32, row: Floats) -> None:
    """Add weight * row to image[c, z, y], unless the weight is zero."""
    if weight != ZERO:
        for i in range(image.shape[3]):
            image[c, z, y, i] += weight * row[i + 1]


@compiled(fastmath=REORDERED)
def return_tile(
    image: Floats,
    offsets: Floats,
    grid: Grid,
    tile: tuple[int, int, int],
    channels: tuple[int, int],
    scratch: Scratch,
    spread: Floats,
    maps: Floats,
    grad_maps: Floats,
    grad_image: Floats,
    grad_offsets: Doubles,
) -> None:
    """Sample a tile again as `sample_tile` does, and take its gradient back.

    Args:
        image: As in `sample_tile`.
        offsets: As in `sample_tile`.
        grid: As in `sample_tile`.
        tile: As in `sample_tile`.
        channels: As in `sample_tile`.
        scratch: As in `sample_tile`.
        spread: Scratch (W + 3,).
        maps: As in `sample_tile`.
        grad_maps: Gradient of `maps`.
        grad_image: (C, D, H, W), added to; without entries it is not wanted.
        grad_offsets: (K, 1 or 2, 3), added to, in voxels.
    """
    depth, height, width = image.shape[1], image.shape[2], image.shape[3]
    n_offsets = offsets.shape[0]
    plane, first, last = tile
    z, y, x = grid
    cells, parts, row = scratch
    columns = x.shape[0]
    for m in range(channels[0], channels[1]):
        c, k = m // n_offsets, m % n_offsets
        target = m - channels[0]
        for i in range(maps.shape[1]):
            maps[target, i] = ZERO
        for p in range(offsets.shape[1]):
            sign = ONE if p == 0 else -ONE
            place(offsets[k, p, 0], x, 0, columns, width, cells, parts, 0)
            place(offsets[k, p, 1], y, first, last - first, height, cells, parts, 1)
            place(offsets[k, p, 2], z, plane, 1, depth, cells, parts, 2)
            z0, z1, near, far = taps(cells[2, 0], parts[2, 0], depth)
            has_near = ONE if 0 < cells[2, 0] <= depth else ZERO
            has_far = ONE if cells[2, 0] < depth else ZERO
            along_x = along_y = along_z = ZERO
            for r in range(last - first):
                y0, y1, above, under = taps(cells[1, r], parts[1, r], height)
                has_above = ONE if 0 < cells[1, r] <= height else ZERO
                has_under = ONE if cells[1, r] < height else ZERO
                w00, w01, w10, w11 = near * above, near * under, far * above, far * under
                start = r * columns
                spread[:] = ZERO
                for i in range(columns):
                    gradient = sign * grad_maps[target, start + i]
                    j = cells[0, i]
                    beyond = gradient * parts[0, i]
                    spread[j] += gradient - beyond
                    spread[j + 1] += beyond
                d00 = d01 = d10 = d11 = ZERO
                for i in range(width):
                    v00, v01 = image[c, z0, y0, i], image[c, z0, y1, i]
                    v10, v11 = image[c, z1, y0, i], image[c, z1, y1, i]
                    gradient = spread[i + 1]
                    d00 += gradient * v00
                    d01 += gradient * v01
                    d10 += gradient * v10
                    d11 += gradient * v11
                    row[i + 1] = w00 * v00 + w01 * v01 + w10 * v10 + w11 * v11
                along_y += near * (has_under * d01 - has_above * d00)
                along_y += far * (has_under * d11 - has_above * d10)
                along_z += above * (has_far * d10 - has_near * d00)
                along_z += under * (has_far * d11 - has_near * d01)
                for i in range(columns):
                    j = cells[0, i]
                    rise = row[j + 1] - row[j]
                    along_x += sign * grad_maps[target, start + i] * rise
                    maps[target, start + i] += sign * (row[j] + parts[0, i] * rise)
                if grad_image.size:
                    add_row(grad_image, c, z0, y0, w00, spread)
                    add_row(grad_image, c, z0, y1, w01, spread)
                    add_row(grad_image, c, z1, y0, w10, spread)
                    add_row(grad_image, c, z1, y1, w11, spread)
            grad_offsets[k, p, 0] += along_x
            grad_offsets[k, p, 1] += along_y
            grad_offsets[k, p, 2] += along_z


@compiled(fastmath=REORDERED)
def convolve_backward(
    gradient: Floats,
    images: Floats,
    offsets: Floats,
    weight: Floats,
    turned: Floats,
    grid: Grid,
    rows: int,
    begin: int,
    end: int,
    grad_images: Floats,
    grad_offsets: Doubles,
    grad_weight: Floats,
) -> None:
    """Gradients of `convolve` for the tiles `begin` to `end` (exclusive).

    Args:
        gradient: (B, groups, outputs of a group, planes, rows, columns).
        images: As in `convolve`.
        offsets: As in `convolve`.
        weight: As in `convolve`.
        turned: `weight` with its last two axes swapped.
        grid: As in `convolve`.
        rows: As in `convolve`.
        begin: As in `convolve`.
        end: As in `convolve`.
        grad_images: (B, C, D, H, W), added to; (B, 0, 0, 0, 0) where it is not wanted.
        grad_offsets: (B, K, 1 or 2, 3) of float64, added to, in voxels.
        grad_weight: As `weight`, added to.
    """
    width, n_offsets = images.shape[4], offsets.shape[1]
    planes, lines, columns = len(grid[0]), len(grid[1]), len(grid[2])
    groups = weight.shape[0]
    inputs = images.shape[1] * n_offsets // groups
    longest = max(columns, rows)
    cells, parts = np.zeros((3, longest), np.int32), np.zeros((3, longest), np.float32)
    scratch = cells, parts, np.zeros(width + 3, np.float32)
    spread = np.zeros(width + 3, np.float32)
    maps = np.zeros((weight.shape[2], rows * columns), np.float32)
    grad_maps = np.zeros((weight.shape[2], rows * columns), np.float32)
    grad_sums = np.zeros((weight.shape[1], rows * columns), np.float32)
    bands = (lines + rows - 1) // rows
    for index in range(begin, end):
        b, plane = index // (planes * bands), index // bands % planes
        first = index % bands * rows
        last = min(first + rows, lines)
        tile = (plane, first, last)
        for g in range(groups):
            grad_sums[:] = ZERO
            for o in range(gradient.shape[2]):
                for r in range(last - first):
                    for i in range(columns):
                        grad_sums[o, r * columns + i] = gradient[b, g, o, plane, first + r, i]
            grad_maps[:] = ZERO
            add_product(turned[g], grad_sums, grad_maps)
            channels = (g * inputs, (g + 1) * inputs)
            return_tile(
                images[b],
                offsets[b],
                grid,
                tile,
                channels,
                scratch,
                spread,
                maps,
                grad_maps,
                grad_images[b],
                grad_offsets[b],
            )
            add_product_transposed(grad_sums, maps, grad_weight[g])
