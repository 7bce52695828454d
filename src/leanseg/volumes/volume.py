"""The volume: voxels in storage order with an affine to world millimetres."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError
from leanseg.volumes.axes import axis_codes

# Beyond these an affine is damage, and arithmetic with it overflows or divides by zero.
_FARTHEST_MM = 1e9
_SMALLEST_SPACING_MM = 1e-9
_FLATTEST = 1e-9


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan or a label map on a regular grid.

    Attributes:
        array: Voxels in order (i, j, k) or, with several channels, (i, j, k, channel).
        affine: Matrix (4, 4), float64, from voxel indices to RAS+ millimetres, as in NIfTI.
        path: The file that the volume was read from, for messages.
        header: The NIfTI header as read, so that a mask written for this scan can carry the
            same affine and header codes bit for bit. None for other formats.

    Raises:
        GeometryError: If the array is not 3-D or 4-D, has an empty axis, or the affine is not
            an invertible, finite (4, 4) matrix.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    path: Path | None = None
    header: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        object.__setattr__(self, "affine", affine)
        name = self.path if self.path is not None else "the volume"
        if self.array.ndim not in (3, 4):
            msg = (
                f"{name}: expected a 3-D volume (or 4-D, channels last), "
                f"found shape {self.array.shape}; convert it to a 3-D volume first"
            )
            raise GeometryError(msg)
        if 0 in self.array.shape:
            msg = f"{name}: shape {self.array.shape} has an empty axis; export the scan again"
            raise GeometryError(msg)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            msg = f"{name}: the affine is not a finite 4 x 4 matrix; export the scan again"
            raise GeometryError(msg)
        if np.abs(affine).max() > _FARTHEST_MM:
            msg = (
                f"{name}: the affine places voxels {np.abs(affine).max():.3g} mm away; "
                "repair the header or export the scan again"
            )
            raise GeometryError(msg)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        # Relative to the spacing, so that neither large nor small voxels count as flat.
        if spacing.min() < _SMALLEST_SPACING_MM or (
            abs(np.linalg.det(affine[:3, :3] / spacing)) < _FLATTEST
        ):
            msg = (
                f"{name}: the affine has determinant zero, so voxels have no place in the world; "
                "repair the header or export the scan again"
            )
            raise GeometryError(msg)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along the three spatial axes."""
        i, j, k = self.array.shape[:3]
        return i, j, k

    @property
    def n_channels(self) -> int:
        """Number of channels: 1 for a 3-D array."""
        return 1 if self.array.ndim == 3 else int(self.array.shape[3])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along the three axes, in mm."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def orientation(self) -> str:
        """Anatomical direction in which each axis increases, such as "LPS" (nibabel's codes)."""
        return axis_codes(self.affine)

    def with_array(self, array: NDArray[Any]) -> Volume:
        """Another volume on the same grid, with the same header, holding `array`."""
        return Volume(array=array, affine=self.affine, path=self.path, header=self.header)
