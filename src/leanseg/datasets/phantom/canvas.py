"""The canvas: a slab of the scan on which tissues are painted one over the other.

Painting in order leaves no gaps and no overlaps. A voxel takes of a tissue the part that the
tissue covers (partial volume), and its label if the voxel's centre lies inside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.phantom.fields import Array, Point, SmoothField

Region = tuple[slice, slice, slice]
AIR_HU = -1000.0

# The warp moves a point by no more than about this much, three standard deviations.
_WARP_MARGIN_MM = 14.0


class Canvas:
    """Grey values and labels on a grid, and the warped coordinates in which anatomy is drawn.

    Attributes:
        axes: Patient coordinates in mm (left, posterior, superior), three 1-D arrays.
        x: Coordinates (i, j, k) in the average anatomy, as are `y` and `z`, in mm there.
        hu: Grey values (i, j, k).
        label: Label map (i, j, k), uint8.
        wall: Distance (i, j, k) to the inner surface of the trunk's wall, set by the trunk.
        dome: Distance (i, j, k) above the diaphragm, set by the trunk.
        texture: Fine random texture (i, j, k), about N(0, 1).
    """

    def __init__(
        self,
        axes: tuple[Array, Array, Array],
        size: float,
        warp: Callable[[Array, Array, Array], tuple[Array, Array, Array]],
        texture: SmoothField,
    ) -> None:
        self.axes = axes
        self.size = size
        dx, dy, dz = warp(*axes)
        self.x = axes[0][:, None, None] / size + dx
        self.y = axes[1][None, :, None] / size + dy
        self.z = axes[2][None, None, :] / size + dz
        self.shape = self.x.shape
        self.hu: Array = np.full(self.shape, AIR_HU, np.float32)
        self.label: NDArray[np.uint8] = np.zeros(self.shape, np.uint8)
        self._sampled: dict[SmoothField, Array] = {}
        self.texture = texture(*axes)
        self.wall: Array = self.x
        self.dome: Array = self.x
        self.pixel_mm = float(axes[0][1] - axes[0][0])
        self.slice_mm = float(axes[2][1] - axes[2][0]) if len(axes[2]) > 1 else 1.0

    def region(self, low: Point, high: Point) -> Region:
        """Indices of the box that can hold anatomy between two corners; may be empty."""
        slices = []
        for axis, a, b in zip(self.axes, low, high, strict=True):
            first = np.searchsorted(axis, (a - _WARP_MARGIN_MM) * self.size)
            last = np.searchsorted(axis, (b + _WARP_MARGIN_MM) * self.size)
            slices.append(slice(int(first), int(last)))
        return slices[0], slices[1], slices[2]

    def at(self, region: Region) -> tuple[Array, Array, Array]:
        """Average-anatomy coordinates in a region."""
        return self.x[region], self.y[region], self.z[region]

    def sample(self, field: SmoothField, region: Region) -> Array:
        """A random field on a region."""
        if field not in self._sampled:
            self._sampled[field] = field(*self.axes)
        return self._sampled[field][region]

    def coverage(self, distance: Array, soft_mm: float = 0.0) -> Array:
        """Part of each voxel, 0 to 1, on the negative side of a distance in average anatomy."""
        if distance.size == 0:
            return np.asarray(distance, np.float32)
        width = np.float32(max(self.pixel_mm, soft_mm))
        if distance.shape[2] > 1:
            # A voxel is taller than wide: a surface facing along z blurs over its height.
            slope = np.gradient(distance, self.slice_mm / self.size, axis=2)
            np.clip(slope, -1, 1, out=slope)
            slope *= slope
            width = np.sqrt(width * width + slope * np.float32(self.slice_mm**2 - width**2))
        part = np.clip(0.5 - distance * self.size / width, 0, 1)
        return np.asarray(part, np.float32)

    def paint(
        self,
        region: Region,
        distance: Array,
        hu: Array | float,
        label: int | None = 0,
        soft_mm: float = 0.0,
    ) -> None:
        """Paint a tissue where the distance is negative.

        Args:
            region: Where.
            distance: Shape of the region, in mm of the average anatomy.
            hu: Grey value, one or for every voxel of the region.
            label: Label of the tissue; None leaves the labels as they are.
            soft_mm: Width of a surface that is not sharp in the body.
        """
        if distance.size == 0:
            return
        part = self.coverage(distance, soft_mm)
        values = self.hu[region]
        values += part * (hu - values)
        if label is not None:
            self.label[region][distance < 0] = label

    def tube(
        self,
        points: NDArray[np.float64],
        radii: NDArray[np.float64] | float,
        margin_mm: float = 8.0,
        flatten: float = 1.0,
    ) -> tuple[Region, Array]:
        """Distance to a chain of round cones along a curve.

        Args:
            points: Curve (n, 3), in average anatomy; a row of nan begins another.
            radii: One, or one for every point, in mm.
            margin_mm: Distances are right up to this far outside.
            flatten: Extent along z relative to that in the axial plane.

        Returns:
            The region around the tube, and the distance there.
        """
        radii = np.broadcast_to(np.asarray(radii, float), len(points))
        reach = radii.max() * max(1.0, flatten) + margin_mm
        low, high = np.nanmin(points, axis=0) - reach, np.nanmax(points, axis=0) + reach
        region = self.region(_point(low), _point(high))
        distance = np.full(self.x[region].shape, margin_mm, np.float32)
        for number in range(len(points) - 1):
            a, b = points[number], points[number + 1]
            if np.isnan(a[0] + b[0]):
                continue
            reach = max(radii[number], radii[number + 1]) * max(1.0, flatten) + margin_mm
            part = self.region(_point(np.minimum(a, b) - reach), _point(np.maximum(a, b) + reach))
            local = _round_cone(
                self.at(part), a, b, float(radii[number]), float(radii[number + 1]), flatten
            )
            inside = tuple(
                slice(max(p.start - r.start, 0), max(p.stop - r.start, 0))
                for p, r in zip(part, region, strict=True)
            )
            view = distance[inside]
            np.minimum(view, local, out=view)
        return region, distance


def _point(values: NDArray[np.float64]) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def _round_cone(
    at: tuple[Array, Array, Array],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    radius_a: float,
    radius_b: float,
    flatten: float,
) -> Array:
    ux, uy, uz = (b - a).astype(np.float32)
    px, py, pz = at[0] - np.float32(a[0]), at[1] - np.float32(a[1]), at[2] - np.float32(a[2])
    length = max(float(ux * ux + uy * uy + uz * uz), 1e-6)
    t = np.clip((px * ux + py * uy + pz * uz) / np.float32(length), 0, 1)
    px -= t * ux
    py -= t * uy
    pz -= t * uz
    pz /= np.float32(flatten)
    distance = np.sqrt(px * px + py * py + pz * pz)
    distance -= np.float32(radius_a) + t * np.float32(radius_b - radius_a)
    return np.asarray(distance, np.float32)
