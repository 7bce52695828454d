"""Smooth random functions of position, and signed distances to shapes.

Distances are in mm, negative inside, and near enough to Euclidean close to the surface for a
voxel's coverage to follow from them. Arrays are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The anatomy lives in this box of mm around the first lumbar vertebra.
_LOW, _HIGH = (-260.0, -190.0, -190.0), (260.0, 190.0, 190.0)
_TINY = np.float32(1e-5)


class SmoothField:
    """A random smooth function of position, about N(0, 1), with features of a given size.

    A uniform cubic B-spline over a lattice of normal values: it has the same value at a point
    whatever grid asks for it, so that a finer grid shows the same anatomy.
    """

    def __init__(self, generator: np.random.Generator, scale_mm: float) -> None:
        self._knots = [
            low + scale_mm * np.arange(-3, int((high - low) / scale_mm) + 5)
            for low, high in zip(_LOW, _HIGH, strict=True)
        ]
        # A cubic B-spline of unit normal values has a standard deviation of about 1/3 in 3-D.
        shape = [len(knots) - 4 for knots in self._knots]
        self._lattice = generator.standard_normal(shape, dtype=np.float32) * np.float32(3.0)

    def __call__(self, axes: Sequence[Array]) -> Array:
        """Values (i, j, k) on the grid that three 1-D axes in mm span."""
        from scipy.interpolate import BSpline

        values = self._lattice
        # The first axis comes last: only then is the array large, and it needs no transposition.
        for axis in (2, 1, 0):
            within = np.clip(axes[axis].astype(np.float64), _LOW[axis], _HIGH[axis])
            basis = BSpline.design_matrix(within, self._knots[axis], 3).astype(np.float32)
            turned = np.moveaxis(values, axis, 0)
            product = basis @ turned.reshape(len(turned), -1)
            values = np.moveaxis(product.reshape(-1, *turned.shape[1:]), 0, axis)
        return values


def ellipsoid(at: Sequence[Array], centre: Sequence[float], radii: Sequence[float]) -> Array:
    """Distance to an ellipsoid along the axes, to first order at its surface."""
    scaled = [(p - c) / r for p, c, r in zip(at, centre, radii, strict=True)]
    k0 = np.sqrt(sum(s * s for s in scaled)) + _TINY
    k1 = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, radii, strict=True)))
    return np.asarray(k0 * (k0 - 1) / (k1 + _TINY / min(radii)), np.float32)


def smooth_curve(points: Array, radii: Array, step_mm: float = 8.0) -> tuple[Array, Array]:
    """Points (n, 3) and radii (n,) along a smooth curve through the given ones."""
    from scipy.interpolate import PchipInterpolator

    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    stops = np.concatenate([[0.0], np.cumsum(lengths)])
    dense = np.linspace(0, stops[-1], max(int(stops[-1] / step_mm), 1) + 1)
    return PchipInterpolator(stops, points)(dense), PchipInterpolator(stops, radii)(dense)


def round_cone(
    at: Sequence[Array], ends: Array, radii: Sequence[float], flatten: float = 1.0
) -> Array:
    """Distance to the hull of two balls, stretched along z by `flatten`.

    Args:
        at: Three coordinates.
        ends: Centres of the balls (2, 3).
        radii: Of both.
        flatten: Extent along z over that in the axial plane.
    """
    a = ends[0].tolist()
    ux, uy, uz = (ends[1] - ends[0]).tolist()
    px, py, pz = (p - c for p, c in zip(at, a, strict=True))
    t = np.clip((px * ux + py * uy + pz * uz) / max(ux * ux + uy * uy + uz * uz, 1e-6), 0, 1)
    away = (px - t * ux) ** 2 + (py - t * uy) ** 2 + ((pz - t * uz) / flatten) ** 2
    first, last = float(radii[0]), float(radii[1])
    return np.asarray(np.sqrt(away) - (first + t * (last - first)), np.float32)


def smooth_union(a: Array, b: Array, width_mm: float) -> Array:
    """Union with a fillet of about `width_mm` where the two surfaces meet; none for 0."""
    h = np.maximum(width_mm - np.abs(a - b), 0) / max(width_mm, 1e-6)
    return np.asarray(np.minimum(a, b) - h * h * (width_mm / 4), np.float32)
