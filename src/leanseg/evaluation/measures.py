"""What one wants of a label map besides the mask: volumes, grey values, extents, components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from leanseg.errors import GeometryError
from leanseg.volumes import Volume, on_grid_of, require_finite

_Points = NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """The measures of one label; None where it has no voxel.

    Attributes:
        label: Its name.
        n_voxels: Number of its voxels.
        volume_ml: Their volume.
        mean: Of the scan's grey values in it (HU in CT).
        sd: Their standard deviation, with n - 1; None of one voxel.
        extent_mm: Of the box around its voxels along the world's axes: right to left, posterior to
            anterior, inferior to superior.
        axial_diameter_mm: The longest line between two points of its outline in one axial slice.
            The outline passes through the middles of the outer voxels' sides.
        n_components: Pieces whose voxels touch by faces, edges or corners.
    """

    label: str
    n_voxels: int = 0
    volume_ml: float = 0.0
    mean: float | None = None
    sd: float | None = None
    extent_mm: tuple[float, float, float] | None = None
    axial_diameter_mm: float | None = None
    n_components: int = 0


def measure(
    mask: Volume, scan: Volume, labels: Mapping[str, int | Sequence[int]]
) -> list[Measures]:
    """Measure every label of a label map in its scan.

    Args:
        mask: (i, j, k), unsigned integers.
        scan: (i, j, k), on the mask's grid, in any orientation.
        labels: Label name to its value or values.

    Returns:
        One entry a label, in the order of `labels`.

    Raises:
        GeometryError: If the two do not lie on one grid, or the scan has several channels.
        LeansegError: If voxels of the scan are not finite.
    """
    if scan.n_channels > 1:
        msg = f"{scan.path or 'the scan'} has {scan.n_channels} channels; choose one (--channel)"
        raise GeometryError(msg)
    require_finite(scan)
    grey = on_grid_of(mask, scan).array
    boxes = ndimage.find_objects(mask.array)
    measured = []
    for name, values in labels.items():
        own = np.atleast_1d(values)
        found = [boxes[value - 1] for value in own if value <= len(boxes) and boxes[value - 1]]
        if not found:
            measured.append(Measures(name))
            continue
        box = tuple(
            slice(min(one.start for one in axis), max(one.stop for one in axis))
            for axis in zip(*found, strict=True)
        )
        inside = np.isin(mask.array[box], own)
        measured.append(_measures(name, inside, grey[box], mask))
    return measured


def _measures(name: str, inside: NDArray[np.bool_], grey: NDArray[Any], mask: Volume) -> Measures:
    axes = mask.affine[:3, :3]
    values = grey[inside].astype(np.float64)
    return Measures(
        name,
        n_voxels=values.size,
        volume_ml=values.size * abs(float(np.linalg.det(axes))) / 1000,
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if values.size > 1 else None,
        extent_mm=_extent_mm(inside, axes),
        axial_diameter_mm=_axial_diameter_mm(inside, mask),
        n_components=int(ndimage.label(inside, np.ones((3, 3, 3)))[1]),
    )


def _ends(inside: NDArray[np.bool_]) -> tuple[_Points, _Points]:
    """Indices of the first and of the last voxel of each line along the last axis: (n, axes)."""
    lines = np.argwhere(inside.any(axis=-1))
    first = inside.argmax(axis=-1)[tuple(lines.T)]
    last = inside.shape[-1] - 1 - inside[..., ::-1].argmax(axis=-1)[tuple(lines.T)]
    return np.c_[lines, first].astype(float), np.c_[lines, last].astype(float)


def _extent_mm(inside: NDArray[np.bool_], axes: _Points) -> tuple[float, float, float]:
    # What lies farthest in any direction is the end of a line.
    places = np.concatenate(_ends(inside)) @ axes.T
    x, y, z = np.ptp(places, axis=0) + np.abs(axes).sum(axis=1)
    return float(x), float(y), float(z)


def _axial_diameter_mm(inside: NDArray[np.bool_], mask: Volume) -> float:
    along = next(axis for axis, code in enumerate(mask.orientation) if code in "IS")
    # Coordinates within the slice in mm, whatever the angle between its axes.
    in_plane = np.linalg.qr(np.delete(mask.affine[:3, :3], along, axis=1))[1]
    longest = 0.0
    for section in np.moveaxis(inside, along, 0):
        if not section.any():
            continue
        first, last = _ends(section)
        half = np.array([0.5, 0.0])
        points = [first - half[::-1], last + half[::-1]]
        points += [end + sign * half for end in (first, last) for sign in (-1, 1)]
        outline = np.concatenate(points) @ in_plane.T
        longest = max(longest, float(pdist(outline[ConvexHull(outline).vertices]).max()))
    return longest
