"""The same voxels in another order, and whether two volumes lie on one grid."""

from __future__ import annotations

from itertools import product

import numpy as np

from leanseg.errors import GeometryError
from leanseg.volumes.axes import axis_view
from leanseg.volumes.volume import AnyVolume, Volume

# Farthest that the same corner voxel of two files may lie apart, in voxels. Headers that hold
# the orientation as a quaternion and as a matrix differ by more than rounding at far corners.
GRID_TOLERANCE_VOXELS = 0.01


def reorient(volume: Volume, codes: str) -> Volume:
    """The volume with its axes in the orientation nearest to `codes`; the array is a view.

    An oblique grid stays oblique: axes are exchanged and reversed, nothing is interpolated.

    Args:
        volume: Any volume in memory.
        codes: Direction in which each axis is to increase, such as "LPS".

    Returns:
        The volume itself where it is in that orientation already; otherwise one without a
        NIfTI header, which would no longer describe it.

    Raises:
        GeometryError: If `codes` is not one of the 48.

    Example:
        >>> import numpy as np
        >>> from leanseg.volumes import Volume, reorient
        >>> scan = Volume(np.zeros((4, 5, 6)), np.eye(4))
        >>> scan.orientation, reorient(scan, "SPL").shape
        ('RAS', (6, 5, 4))
    """
    array, affine = axis_view(volume.array, volume.affine, codes)
    if volume.orientation == codes:
        return volume
    return Volume(array=array, affine=affine, path=volume.path)


def corners_apart_mm(a: AnyVolume, b: AnyVolume) -> float:
    """Largest distance in mm between like corner voxels; infinite where the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in a.shape))])
    return float(np.linalg.norm(corners @ (a.affine - b.affine).T[:, :3], axis=1).max())


def same_grid(a: AnyVolume, b: AnyVolume) -> bool:
    """Whether voxel (i, j, k) is the same place in both, to a hundredth of a voxel."""
    return corners_apart_mm(a, b) <= GRID_TOLERANCE_VOXELS * min(a.spacing_mm)


def on_grid_of(reference: AnyVolume, volume: Volume) -> Volume:
    """The volume in the reference's voxel order, if both are one grid in the world.

    No voxel moves or changes: axes are swapped or reversed where the volume is stored so.

    Raises:
        GeometryError: If shapes differ, or a corner voxel lies apart by more than a hundredth
            of the smallest spacing.
    """
    if same_grid(reference, volume):
        return volume
    turned = reorient(volume, reference.orientation)
    if same_grid(reference, turned):
        return turned
    names = f"{reference.path or 'a volume'} and {volume.path or 'a volume'}"
    if turned.shape != reference.shape:
        msg = (
            f"{names} have different shapes, {reference.shape} and {volume.shape}; "
            "resample one to the grid of the other"
        )
        raise GeometryError(msg)
    closest = volume if volume.shape == reference.shape else turned
    apart_mm = corners_apart_mm(reference, closest)
    msg = (
        f"{names} lie on different grids: the same voxel is up to {apart_mm:.3g} mm apart; "
        "correct the header, or resample one to the grid of the other"
    )
    raise GeometryError(msg)
