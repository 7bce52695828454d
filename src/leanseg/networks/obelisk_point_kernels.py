"""Compiled loops that sample images at scattered points and offsets, on the CPU.

What sparse training of OBELISK needs: some hundred points per image, each at all offsets. Terms
and conventions as in `leanseg.kernels.sparse_sampling`; the image itself gets no gradient here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leanseg.kernels.sparse_sampling import (
    ONE,
    REORDERED,
    ZERO,
    Doubles,
    Floats,
    compiled,
    locate,
)


@compiled()
def cell_of(
    offsets: Floats, points: Floats, b: int, k: int, p: int, n: int, shape: tuple[int, int, int]
) -> tuple[Any, ...]:
    """Cells and parts along depth, rows and columns of point `n` at an offset."""
    z, fz = locate(points[b, n, 2] + offsets[b, k, p, 2], shape[0])
    y, fy = locate(points[b, n, 1] + offsets[b, k, p, 1], shape[1])
    x, fx = locate(points[b, n, 0] + offsets[b, k, p, 0], shape[2])
    return z, y, x, fz, fy, fx


@compiled(fastmath=REORDERED)
def tap(images: Floats, b: int, c: int, z: int, y: int, x: int) -> np.float32:
    """A voxel, or zero outside of the image."""
    depth, height, width = images.shape[2:]
    if z < 0 or y < 0 or x < 0 or z >= depth or y >= height or x >= width:
        return ZERO
    voxel: np.float32 = images[b, c, z, y, x]
    return voxel


@compiled(fastmath=REORDERED)
def along_columns(
    images: Floats, b: int, c: int, z: int, y: int, x: int, part: np.float32
) -> tuple[np.float32, np.float32]:
    """Value and rise between two neighbours of a row; x is a cell, z and y are indices."""
    below, above = tap(images, b, c, z, y, x - 1), tap(images, b, c, z, y, x)
    return below + part * (above - below), above - below


@compiled(fastmath=REORDERED)
def sample_points(
    images: Floats, offsets: Floats, points: Floats, begin: int, end: int, result: Floats
) -> None:
    """Sample at every point plus offset.

    Args:
        images: (B, C, D, H, W).
        offsets: (B, K, 1 or 2, 3), (column, row, depth); of a pair the second is subtracted.
        points: (B, N, 3), likewise.
        begin: First of the B * K offsets.
        end: Last of them (exclusive).
        result: (B, C, K, N), filled there.
    """
    n_offsets = offsets.shape[1]
    for index in range(begin, end):
        b, k = index // n_offsets, index % n_offsets
        for n in range(points.shape[1]):
            for c in range(images.shape[1]):
                result[b, c, k, n] = ZERO
            for p in range(offsets.shape[2]):
                sign = ONE if p == 0 else -ONE
                z, y, x, fz, fy, fx = cell_of(offsets, points, b, k, p, n, images.shape[2:])
                for c in range(images.shape[1]):
                    v00, _ = along_columns(images, b, c, z - 1, y - 1, x, fx)
                    v01, _ = along_columns(images, b, c, z - 1, y, x, fx)
                    v10, _ = along_columns(images, b, c, z, y - 1, x, fx)
                    v11, _ = along_columns(images, b, c, z, y, x, fx)
                    near, far = v00 + fy * (v01 - v00), v10 + fy * (v11 - v10)
                    result[b, c, k, n] += sign * (near + fz * (far - near))


@compiled(fastmath=REORDERED)
def sample_points_backward(
    gradient: Floats,
    images: Floats,
    offsets: Floats,
    points: Floats,
    begin: int,
    end: int,
    grad_offsets: Doubles,
) -> None:
    """Gradient of `sample_points` with respect to the offsets `begin` to `end` (exclusive).

    Args:
        gradient: (B, C, K, N).
        images: As in `sample_points`.
        offsets: As in `sample_points`.
        points: As in `sample_points`.
        begin: As in `sample_points`.
        end: As in `sample_points`.
        grad_offsets: (B, K, 1 or 2, 3) of float64, added to, in voxels.
    """
    n_offsets = offsets.shape[1]
    for index in range(begin, end):
        b, k = index // n_offsets, index % n_offsets
        for p in range(offsets.shape[2]):
            sign = ONE if p == 0 else -ONE
            along_x = along_y = along_z = ZERO
            for n in range(points.shape[1]):
                z, y, x, fz, fy, fx = cell_of(offsets, points, b, k, p, n, images.shape[2:])
                for c in range(images.shape[1]):
                    slope = sign * gradient[b, c, k, n]
                    v00, r00 = along_columns(images, b, c, z - 1, y - 1, x, fx)
                    v01, r01 = along_columns(images, b, c, z - 1, y, x, fx)
                    v10, r10 = along_columns(images, b, c, z, y - 1, x, fx)
                    v11, r11 = along_columns(images, b, c, z, y, x, fx)
                    near, far = v00 + fy * (v01 - v00), v10 + fy * (v11 - v10)
                    along_z += slope * (far - near)
                    along_y += slope * ((ONE - fz) * (v01 - v00) + fz * (v11 - v10))
                    rise0, rise1 = r00 + fy * (r01 - r00), r10 + fy * (r11 - r10)
                    along_x += slope * (rise0 + fz * (rise1 - rise0))
            grad_offsets[b, k, p, 0] += np.float64(along_x)
            grad_offsets[b, k, p, 1] += np.float64(along_y)
            grad_offsets[b, k, p, 2] += np.float64(along_z)
