"""Building blocks of the phantom: smooth random functions of position, and distances to shapes.

Distances are signed, in mm, negative inside, and near enough to Euclidean close to the surface
for a voxel's coverage to follow from them. Arrays are float32 throughout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Curve = NDArray[np.float64]
Point = tuple[float, float, float]

# The anatomy lives in this box of millimetres around the first lumbar vertebra.
LOW: Point = (-260.0, -190.0, -190.0)
HIGH: Point = (260.0, 190.0, 190.0)

# Keeps the quotients below defined at the very centre of a shape.
_TINY = np.float32(1e-5)


class SmoothField:
    """A random smooth function of position, about N(0, 1), with features of a given size.

    A uniform cubic B-spline over a lattice of normal values: it has the same value at a point
    whatever grid asks for it, so that a finer grid shows the same anatomy.
    """

    def __init__(self, generator: np.random.Generator, scale_mm: float) -> None:
        self.scale_mm = scale_mm
        counts = [int((high - low) / scale_mm) + 4 for low, high in zip(LOW, HIGH, strict=True)]
        # A cubic B-spline of unit normal values has a standard deviation of about 1/3 in 3-D.
        self._lattice = generator.standard_normal(counts, dtype=np.float32) * np.float32(3.0)

    def __call__(self, x: Array, y: Array, z: Array) -> Array:
        """Values (len(x), len(y), len(z)) on the grid that three 1-D axes in mm span."""
        if 0 in (len(x), len(y), len(z)):
            return np.zeros((len(x), len(y), len(z)), np.float32)
        # Sums of four lattice planes, not matrix products: the same bits for any thread count.
        (rows, row_weights), (columns, column_weights), (planes, plane_weights) = (
            self._taps(axis, coordinates) for axis, coordinates in enumerate((x, y, z))
        )
        lattice = self._lattice[rows.min() : rows.max() + 4, columns.min() : columns.max() + 4]
        rows, columns = rows - rows.min(), columns - columns.min()
        by_plane = sum(lattice[:, :, planes + n] * plane_weights[n] for n in range(4))
        by_column = sum(by_plane[:, columns + n] * column_weights[n][:, None] for n in range(4))
        values = np.empty((len(x), len(y), len(z)), np.float32)
        for row, (first, weights) in enumerate(zip(rows, row_weights.T, strict=True)):
            np.multiply(by_column[first], weights[0], out=values[row])
            for n in range(1, 4):
                values[row] += by_column[first + n] * weights[n]
        return values

    def _taps(self, axis: int, coordinates: Array) -> tuple[NDArray[np.intp], Array]:
        """First of the four lattice planes around each coordinate, and weights (4, n)."""
        count = self._lattice.shape[axis]
        position = np.clip((coordinates - LOW[axis]) / self.scale_mm, 0, count - 3.001)
        cell = position.astype(np.intp)
        t = position - cell
        weights = np.stack(
            [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
        )
        return cell, (weights / 6).astype(np.float32)


def ellipsoid(x: Array, y: Array, z: Array, centre: Point, radii: Point) -> Array:
    """Distance to an ellipsoid with axes along x, y and z, to first order at its surface."""
    u, v, w = ((p - c) / r for p, c, r in zip((x, y, z), centre, radii, strict=True))
    k0 = np.sqrt(u * u + v * v + w * w) + _TINY
    k1 = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    return np.asarray(k0 * (k0 - 1) / (k1 + _TINY / min(radii)), np.float32)


def ellipse(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """Distance to an ellipse in the axial plane, extended along z."""
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    k0 = np.sqrt(u * u + v * v) + _TINY
    k1 = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2)
    return np.asarray(k0 * (k0 - 1) / (k1 + _TINY / min(radii)), np.float32)


def smooth_union(a: Array, b: Array, width_mm: float) -> Array:
    """Union with a fillet of about `width_mm` where the two surfaces meet."""
    h = np.maximum(width_mm - np.abs(a - b), 0) / width_mm
    return np.asarray(np.minimum(a, b) - h * h * (width_mm / 4), np.float32)


def smooth_intersection(a: Array, b: Array, width_mm: float) -> Array:
    """Intersection with edges rounded over about `width_mm`; carve `b` out with `-b`."""
    return -smooth_union(-a, -b, width_mm)


def curve(points: list[Point] | Curve, step_mm: float = 5.0) -> Curve:
    """Points (n, 3) at most `step_mm` apart along a smooth curve through the given ones."""
    given = np.asarray(points, float)
    return _interpolated(given, given, step_mm)


def along(points: list[Point], values: list[float], step_mm: float = 5.0) -> Curve:
    """Values (n,) such as radii, interpolated as `curve` interpolates the points."""
    return _interpolated(np.asarray(points, float), np.asarray(values, float), step_mm)


def _interpolated(points: Curve, values: Curve, step_mm: float) -> Curve:
    """A Catmull-Rom spline of the values, sampled by the distance between the points."""
    padded = np.concatenate([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    pieces = []
    for number, length in enumerate(np.linalg.norm(np.diff(points, axis=0), axis=1)):
        a, b, c, d = padded[number : number + 4]
        for t in np.linspace(0, 1, max(int(length / step_mm), 1), endpoint=False):
            quadratic, cubic = 2 * a - 5 * b + 4 * c - d, 3 * b - a - 3 * c + d
            pieces.append(0.5 * (2 * b + (c - a) * t + quadratic * t**2 + cubic * t**3))
    return np.asarray([*pieces, values[-1]])
