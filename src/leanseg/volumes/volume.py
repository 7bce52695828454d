"""The volume: voxels in storage order with an affine to world mm, in memory or in a file."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
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


class AnyVolume(ABC):
    """What a volume in memory and one in a file have in common.

    Attributes:
        affine: Matrix (4, 4), float64, from voxel indices to RAS+ millimetres, as in NIfTI.
        path: The file that the volume comes from, for messages.
        header: The NIfTI header as stored, so that a mask written for this scan can carry the
            same affine and header codes bit for bit. None for other formats.
    """

    affine: NDArray[np.float64]
    path: Path | None
    header: Any

    @property
    @abstractmethod
    def array_shape(self) -> tuple[int, ...]:
        """Shape of the array: (i, j, k) or, with several channels, (i, j, k, channel)."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""

    @abstractmethod
    def read(self) -> Volume:
        """The volume with all its voxels in memory."""

    @abstractmethod
    def slabs(self, planes: int, start: int = 0) -> Iterator[NDArray[Any]]:
        """Consecutive parts of the array along its third axis, from the first to the last.

        Every call begins anew. The parts are the bits of `read().array`; they may be views, so
        they must not be written to.

        Args:
            planes: Length of a part along the third axis; the last one may be shorter.
            start: Index of the first plane.

        Yields:
            (i, j, planes) or (i, j, planes, channel).

        Raises:
            FileFormatError: If the file is damaged; also after the last part, since a gzipped
                file keeps its checksum at its end.
        """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along the three spatial axes."""
        i, j, k = self.array_shape[:3]
        return i, j, k

    @property
    def n_channels(self) -> int:
        """Number of channels: 1 for a 3-D array."""
        return 1 if len(self.array_shape) == 3 else self.array_shape[3]

    @property
    def n_bytes(self) -> int:
        """Size of all voxels in memory."""
        return int(np.prod(self.array_shape, dtype=object)) * self.dtype.itemsize

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along the three axes, in mm."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def orientation(self) -> str:
        """Anatomical direction in which each axis increases, such as "LPS" (nibabel's codes)."""
        return axis_codes(self.affine)


@dataclass(frozen=True, eq=False)
class Volume(AnyVolume):
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

    Example:
        >>> scan = leanseg.Volume(np.zeros((512, 512, 90), np.int16), np.diag([-0.8, -0.8, 5, 1]))
        >>> scan.shape, scan.spacing_mm, scan.orientation
        ((512, 512, 90), (0.8, 0.8, 5.0), 'LPS')
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    path: Path | None = None
    header: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        name = self.path if self.path is not None else "the volume"
        object.__setattr__(self, "affine", checked_affine(self.affine, name))
        if self.array.ndim not in (3, 4):
            msg = (
                f"{name}: expected a 3-D volume (or 4-D, channels last), "
                f"found shape {self.array.shape}; convert it to a 3-D volume first"
            )
            raise GeometryError(msg)
        if 0 in self.array.shape:
            msg = f"{name}: shape {self.array.shape} has an empty axis; export the scan again"
            raise GeometryError(msg)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.array.dtype

    def read(self) -> Volume:
        """The volume itself."""
        return self

    def slabs(self, planes: int, start: int = 0) -> Iterator[NDArray[Any]]:
        """Consecutive parts of the array along its third axis, as views."""
        for first in range(start, self.array.shape[2], planes):
            yield self.array[:, :, first : first + planes]

    def with_array(self, array: NDArray[Any]) -> Volume:
        """Another volume on the same grid, with the same header, holding `array`."""
        return Volume(array=array, affine=self.affine, path=self.path, header=self.header)


class StoredVolume(AnyVolume):
    """A volume in a file of which only the header has been read.

    Made by `leanseg.volumes.open_volume`.

    Args:
        path: The file.
        array_shape: Shape of the array that reading gives.
        dtype: Its type. For DICOM the wider of the two that the headers leave open.
        affine: To RAS+ mm.
        read: Reads the whole.
        slabs: Streams parts of it, called with `planes` and `start`; None for files that can only
            be read whole.
        header: The NIfTI header.
        reading_bytes: What reading the whole holds in memory besides the array, at most.

    Raises:
        GeometryError: If the affine is not an invertible, finite (4, 4) matrix.
    """

    def __init__(
        self,
        path: Path,
        array_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        affine: NDArray[np.float64],
        read: Callable[[], Volume],
        slabs: Callable[[int, int], Iterator[NDArray[Any]]] | None = None,
        header: Any = None,
        reading_bytes: int = 0,
    ) -> None:
        self.path: Path = path
        self.affine = checked_affine(affine, path)
        self.header = header
        self.reading_bytes = reading_bytes
        self._array_shape, self._dtype = array_shape, dtype
        self._read, self._slabs = read, slabs

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Shape of the array that reading gives."""
        return self._array_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels that reading gives."""
        return self._dtype

    @property
    def streams(self) -> bool:
        """Whether `slabs` holds one part at a time; if not, it reads the whole at each call."""
        return self._slabs is not None

    def read(self) -> Volume:
        """The volume with all its voxels in memory."""
        return replace(self._read(), path=self.path)

    def renamed(self, path: Path) -> StoredVolume:
        """The same under another name, for files that came out of an archive."""
        named = copy.copy(self)
        named.path = path
        return named

    def slabs(self, planes: int, start: int = 0) -> Iterator[NDArray[Any]]:
        """Consecutive parts of the array along its third axis, read as they are asked for."""
        if self._slabs is None:
            return self.read().slabs(planes, start)
        return self._slabs(planes, start)


def checked_affine(affine: NDArray[np.float64], name: object) -> NDArray[np.float64]:
    """A copy of an affine that places every voxel.

    Raises:
        GeometryError: Naming the volume, if the affine does not.
    """
    affine = np.array(affine, dtype=np.float64)
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
    return affine
