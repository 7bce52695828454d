"""Grids: voxels in another order, whether two volumes lie on one grid, and boxes of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    return affines_apart_mm(a.affine, b.affine, a.shape) if a.shape == b.shape else float("inf")


def affines_apart_mm(
    a: NDArray[np.float64], b: NDArray[np.float64], shape: Sequence[int] | NDArray[Any]
) -> float:
    """Largest distance in mm between the places that two affines give a corner voxel."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm(corners @ (a - b).T[:, :3], axis=1).max())


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
    apart_mm = min(corners_apart_mm(reference, either) for either in (volume, turned))
    if apart_mm == float("inf"):
        what = f"have different shapes, {reference.shape} and {volume.shape}"
    else:
        what = f"lie on different grids: the same voxel is up to {apart_mm:.3g} mm apart"
    raise GeometryError(
        f"{names} {what}; correct the header, or put one on the grid of the other with "
        "leanseg.resample"
    )


@dataclass(frozen=True)
class Box:
    """A range of voxels along each of the three axes, `start` included and `stop` not.

    Raises:
        GeometryError: If a start is negative or not before its stop.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    def __post_init__(self) -> None:
        ranges = zip(self.start, self.stop, strict=True)
        if len(self.start) != 3 or not all(0 <= a < b for a, b in ranges):
            msg = f"box from {self.start} to {self.stop} is empty or begins before voxel 0"
            raise GeometryError(f"{msg}; give 0 <= start < stop along three axes")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along the three axes."""
        i, j, k = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return i, j, k

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To index an array (i, j, k, ...)."""
        i, j, k = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return i, j, k

    def require_within(self, shape: Sequence[int]) -> None:
        """Refuse to reach past a grid.

        Raises:
            GeometryError: If a stop is past the end of its axis.
        """
        if any(stop > n for stop, n in zip(self.stop, shape[:3], strict=True)):
            msg = f"box to {self.stop} reaches past the grid {tuple(shape[:3])}; use a smaller box"
            raise GeometryError(msg)


def crop(volume: Volume, box: Box) -> Volume:
    """The part of a volume within a box, as a view, each voxel where it was in the world.

    Args:
        volume: Any volume in memory.
        box: Which voxels.

    Raises:
        GeometryError: If the box reaches past the volume.

    Example:
        >>> import numpy as np
        >>> from leanseg.volumes import Box, Volume, crop
        >>> part = crop(Volume(np.zeros((4, 5, 6)), np.eye(4)), Box((1, 0, 2), (3, 5, 4)))
        >>> part.shape, part.affine[:3, 3].tolist()
        ((2, 5, 2), [1.0, 0.0, 2.0])
    """
    box.require_within(volume.shape)
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ np.array(box.start, dtype=np.float64)
    return Volume(array=volume.array[box.slices], affine=affine, path=volume.path)


def paste(part: Volume, box: Box, reference: AnyVolume, outside: float = 0) -> Volume:
    """The part on the full grid that it was cropped from.

    Args:
        part: What `crop(reference, box)` gave, or other voxels on the same grid.
        box: Where it was cropped.
        reference: Gives the full grid; its voxels are not used.
        outside: Value beyond the box.

    Returns:
        A volume of the part's type with the reference's affine and header.

    Raises:
        GeometryError: If part, box and reference do not fit together.

    Example:
        >>> import numpy as np
        >>> from leanseg.volumes import Box, Volume, crop, paste
        >>> scan, box = Volume(np.ones((4, 5, 6)), np.eye(4)), Box((1, 0, 2), (3, 5, 4))
        >>> pasted = paste(crop(scan, box), box, scan, outside=-1)
        >>> pasted.shape, float(pasted.array[0, 0, 0]), float(pasted.array[1, 0, 2])
        ((4, 5, 6), -1.0, 1.0)
    """
    box.require_within(reference.shape)
    if part.shape != box.shape:
        msg = f"{part.path or 'the part'}: shape {part.shape} does not fill a box of shape "
        raise GeometryError(f"{msg}{box.shape}; paste back what was cropped with that box")
    full = np.full(
        (*reference.shape, *part.array.shape[3:]), outside, dtype=part.array.dtype, order="F"
    )
    full[box.slices] = part.array
    return Volume(full, reference.affine, reference.path, reference.header)


def bounding_box(
    mask: NDArray[Any],
    *,
    margin_mm: float = 0.0,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Box | None:
    """The smallest box that holds every non-zero voxel, widened, within the grid.

    Args:
        mask: (i, j, k).
        margin_mm: Added on every side, rounded up to whole voxels.
        spacing_mm: The mask's, for `margin_mm`.

    Returns:
        None where the mask is empty.
    """
    start, stop = [], []
    for axis, spacing in enumerate(spacing_mm):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if filled.size == 0:
            return None
        # A margin that is a whole number of voxels but for rounding stays that number.
        margin = int(np.ceil(margin_mm / spacing - 1e-6))
        start.append(max(0, int(filled[0]) - margin))
        stop.append(min(mask.shape[axis], int(filled[-1]) + 1 + margin))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
