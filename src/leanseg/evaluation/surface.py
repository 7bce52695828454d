"""Distances between the surfaces of two masks, in mm, on anisotropic and on sheared grids.

A surface voxel is a foreground voxel with at least one background face neighbour; a distance
runs between voxel centres in the world. Nearest neighbours come from a KD-tree over the surface
voxels, which is far cheaper than a distance transform of the volume, and voxels that belong to
both surfaces are never searched for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError
from leanseg.volumes import bounding_box
from leanseg.volumes.axes import largest_cosine
from leanseg.volumes.volume import checked_affine

ScanBorder = Literal["surface", "open"]
Mask = NDArray[np.bool_]
# Distances between voxel centres along the three axes, or the affine to the world.
Spacing = Sequence[float] | NDArray[Any]
# The steps from voxel to voxel, in mm: columns of a (3, 3) matrix.
Axes = NDArray[np.float64]
# Cosine of an angle between axes up to which it is a right one: headers round.
_RIGHT = 1e-5


class SurfaceDistances(NamedTuple):
    """Distances between two surfaces, each in no particular order.

    Attributes:
        prediction_to_reference: Shape (n surface voxels of the prediction,), mm.
        reference_to_prediction: Shape (n surface voxels of the reference,), mm.
    """

    prediction_to_reference: NDArray[np.float64]
    reference_to_prediction: NDArray[np.float64]

    @property
    def hausdorff_mm(self) -> float:
        """Largest distance of either direction (maximum symmetric surface distance)."""
        return float(max(each.max() for each in self))

    @property
    def hausdorff95_mm(self) -> float:
        """The larger of the two directed 95th percentiles, linearly interpolated."""
        return float(max(np.percentile(each, 95) for each in self))

    @property
    def assd_mm(self) -> float:
        """Mean over the distances of both directions pooled."""
        return float(sum(each.sum() for each in self) / sum(each.size for each in self))


def axes_mm(spacing_mm: Spacing) -> Axes:
    """The steps from voxel to voxel along the axes of a grid, as columns.

    Raises:
        GeometryError: If a spacing is not positive, or the affine places no voxel.
    """
    given = np.asarray(spacing_mm, dtype=np.float64)
    if given.shape == (3,):
        if not (np.isfinite(given).all() and given.min() > 0):
            msg = f"spacing {tuple(given.tolist())} mm is not positive; correct the header"
            raise GeometryError(msg)
        return np.diag(given)
    affine = checked_affine(given, "the label map")
    if largest_cosine(affine) > _RIGHT:
        return affine[:3, :3]
    # Nothing that is measured depends on how a grid lies, and so the numbers are rounder.
    return np.diag(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def crop_to_surfaces(
    prediction: Mask, reference: Mask, scan_border: ScanBorder = "surface"
) -> tuple[Mask, Mask] | None:
    """Both masks cut to their joint bounding box, with a margin in which surfaces can end.

    Args:
        prediction: Shape (i, j, k).
        reference: The same shape.
        scan_border: Where foreground touches the border of the scan, "surface" adds one voxel
            of background outside, so that the cut face counts as surface; "open" adds nothing:
            what lies outside is unknown, and the cut face is no surface.

    Returns:
        The two crops, C-contiguous, of one shape; None if both masks are empty.
    """
    box = bounding_box(prediction | reference)
    if box is None:
        return None
    ends = list(zip(box.start, box.stop, prediction.shape, strict=True))
    wide = tuple(slice(max(start - 1, 0), min(stop + 1, n)) for start, stop, n in ends)
    margins = [(int(start == 0), int(stop == n)) for start, stop, n in ends]
    crops = []
    for mask in (prediction, reference):
        crop = mask[wide]
        if scan_border == "surface" and np.any(margins):
            crop = np.pad(crop, margins)
        crops.append(np.ascontiguousarray(crop))
    return crops[0], crops[1]


def surface_voxels(mask: Mask) -> Mask:
    """Foreground voxels with a background face neighbour inside the array.

    The array's own border is open; `crop_to_surfaces` adds background where it should not be.
    """
    interior = mask.copy()
    for axis in range(mask.ndim):
        moved, whole = np.moveaxis(interior, axis, 0), np.moveaxis(mask, axis, 0)
        moved[1:] &= whole[:-1]
        moved[:-1] &= whole[1:]
    return np.logical_xor(mask, interior, out=interior)


def positions_mm(marked: Mask, axes: Axes) -> NDArray[np.float64]:
    """Centres of the marked voxels, shape (n, 3), in mm from the first voxel."""
    indices = np.unravel_index(np.flatnonzero(marked), marked.shape)
    # Most grids are right-angled: one product for each coordinate.
    coordinates = [
        sum(index * step for index, step in zip(indices, steps, strict=True) if step)
        for steps in axes
    ]
    return np.stack(coordinates, axis=1)


def nearest_distances(
    points: NDArray[np.float64],
    targets: NDArray[np.float64],
    limit_mm: float = np.inf,
) -> NDArray[np.float64]:
    """Distance from each of `points` (n, 3) to the nearest of `targets` (m, 3).

    Distances beyond `limit_mm` come back as infinity, which lets the search stop early.
    """
    if len(points) == 0:
        return np.empty(0)
    # Not on top: predicting imports this room, and this takes 30 MB.
    from scipy.spatial import cKDTree

    # Sliding-midpoint splits: building costs half of the balanced tree, searching no more.
    tree = cKDTree(targets, compact_nodes=False, balanced_tree=False)
    distances: NDArray[np.float64] = tree.query(points, distance_upper_bound=limit_mm)[0]
    return distances


def distances_between(prediction: Mask, reference: Mask, axes: Axes) -> SurfaceDistances | None:
    """Distances between the surface voxels of two masks that `crop_to_surfaces` has cut.

    Returns:
        The distances of both directions, or None where either mask has no surface.
    """
    surfaces = surface_voxels(prediction), surface_voxels(reference)
    if not (surfaces[0].any() and surfaces[1].any()):
        return None
    shared = surfaces[0] & surfaces[1]
    on_shared = np.zeros(np.count_nonzero(shared))
    shared_mm = positions_mm(shared, axes)
    alone_mm = [positions_mm(surface & ~shared, axes) for surface in surfaces]
    directed = [
        np.concatenate(
            [
                on_shared,
                nearest_distances(alone_mm[own], np.concatenate([shared_mm, alone_mm[other]])),
            ]
        )
        for own, other in ((0, 1), (1, 0))
    ]
    return SurfaceDistances(*directed)
