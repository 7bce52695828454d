"""The volume: voxels in storage order with an affine to world mm, in memory or in a file."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError, LeansegError
from leanseg.volumes.axes import axis_codes, largest_cosine

# Beyond these an affine is damage, and arithmetic with it overflows or divides by zero.
_FARTHEST_MM = 1e9
_SMALLEST_SPACING_MM = 1e-9
_FLATTEST = 1e-9
# Cosine of an angle between axes from which on it is no rounding of a right one: 0.06 degrees.
_SHEAR = 1e-3


class AnyVolume(ABC):
    """What a volume in memory and one in a file have in common.

    Attributes:
        array_shape: Of the array: (i, j, k) or, with several channels, (i, j, k, channel).
        dtype: Type of the voxels.
        affine: Matrix (4, 4), float64, from voxel indices to RAS+ millimetres, as in NIfTI.
        path: The file that the volume comes from, for messages.
        header: The NIfTI header as stored, so that a mask written for this scan can carry the
            same affine and header codes bit for bit. None for other formats.
        notes: What the user should know about the file's header, a sentence each.
    """

    array_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    path: Path | None
    header: Any
    notes: tuple[str, ...]

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
        """Distance between voxel centres along the three axes, in mm.

        Where axes are sheared, planes lie nearer to each other than this.
        """
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
        notes: What the user should know about the file's header, a sentence each.

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
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        name = self.path if self.path is not None else "the volume"
        vars(self).update(affine=checked_affine(self.affine, name))
        vars(self).update(array_shape=self.array.shape, dtype=self.array.dtype)
        if self.array.ndim not in (3, 4) or 0 in self.array.shape:
            msg = f"{name}: expected a 3-D volume (or 4-D, channels last) without an empty axis, "
            raise GeometryError(f"{msg}found shape {self.array.shape}; convert it first")

    def read(self) -> Volume:
        """The volume itself."""
        return self

    def slabs(self, planes: int, start: int = 0) -> Iterator[NDArray[Any]]:
        """Consecutive parts of the array along its third axis, as views."""
        for first in range(start, self.array.shape[2], planes):
            yield self.array[:, :, first : first + planes]

    def with_array(self, array: NDArray[Any]) -> Volume:
        """Another volume on the same grid, with the same header, holding `array`."""
        return replace(self, array=array)


@dataclass(eq=False)
class StoredVolume(AnyVolume):
    """A volume in a file of which only the header has been read.

    Made by `leanseg.volumes.open_volume`.

    Args:
        path: The file.
        array_shape: Shape of the array that reading gives.
        dtype: Its type. For DICOM the wider of the two that the headers leave open.
        affine: To RAS+ mm.
        whole: Reads all of it.
        parts: Streams parts of it, called with `planes` and `start`; None for files that can only
            be read whole.
        header: The NIfTI header.
        reading_bytes: What reading the whole holds in memory besides the array, at most.
        notes: What the user should know about the header; sheared axes are added here.

    Raises:
        GeometryError: If the affine is not an invertible, finite (4, 4) matrix.
    """

    path: Path
    array_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    whole: Callable[[], Volume] = field(repr=False)
    parts: Callable[[int, int], Iterator[NDArray[Any]]] | None = field(default=None, repr=False)
    header: Any = field(default=None, repr=False)
    reading_bytes: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.affine = checked_affine(self.affine, self.path)
        self.notes = tuple(dict.fromkeys((*self.notes, *_shear_note(self.affine))))

    @property
    def streams(self) -> bool:
        """Whether `slabs` holds one part at a time; if not, it reads the whole at each call."""
        return self.parts is not None

    def read(self) -> Volume:
        """The volume with all its voxels in memory."""
        return replace(self.whole(), path=self.path, notes=self.notes)

    def slabs(self, planes: int, start: int = 0) -> Iterator[NDArray[Any]]:
        """Consecutive parts of the array along its third axis, read as they are asked for."""
        if self.parts is None:
            return self.read().slabs(planes, start)
        return self.parts(planes, start)


def checked_affine(affine: NDArray[np.float64], name: object) -> NDArray[np.float64]:
    """A copy of an affine that places every voxel.

    Raises:
        GeometryError: Naming the volume, if the affine does not.
    """
    affine = np.array(affine, dtype=np.float64)
    if not is_sound(affine):
        raise GeometryError(
            f"{name}: the affine is not a finite 4 x 4 matrix, has determinant zero or leads far "
            "away, so voxels have no place in the world; repair it or export the scan again"
        )
    return affine


def is_sound(affine: NDArray[np.float64]) -> bool:
    """Whether an affine is finite, invertible and does not lead beyond all measure."""
    if affine.shape != (4, 4) or not bool((np.abs(affine) <= _FARTHEST_MM).all()):
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Relative to the spacing, so that neither large nor small voxels count as flat.
    return bool(
        spacing.min() >= _SMALLEST_SPACING_MM
        and abs(np.linalg.det(affine[:3, :3] / spacing)) >= _FLATTEST
    )


def _shear_note(affine: NDArray[np.float64]) -> tuple[str, ...]:
    """What to say of axes that are not at right angles, as gantry tilt leaves them."""
    cosine = largest_cosine(affine)
    if cosine <= _SHEAR:
        return ()
    return (
        f"its axes meet at {np.degrees(np.arccos(cosine)):.1f} degrees: volumes and distances "
        "allow for it, but a network sees the slices as if they were not shifted",
    )


def squeezed_shape(shape: Sequence[int], path: object) -> tuple[int, ...]:
    """The shape of a stored array without singleton axes past the third.

    Args:
        shape: As stored, spatial axes first.
        path: Names the volume in the message.

    Returns:
        (i, j, k) or (i, j, k, channel).

    Raises:
        GeometryError: If the array has fewer than three axes, an empty one, or more than one
            axis of channels.
    """
    kept = tuple(int(n) for n in (*shape[:3], *(n for n in shape[3:] if n != 1)))
    if len(kept) not in (3, 4) or min(kept) < 1:
        msg = f"{path}: expected a 3-D volume (or 4-D with channels) without an empty axis, "
        raise GeometryError(
            f"{msg}found shape {tuple(map(int, shape))}; convert or export it again"
        )
    return kept


def label_dtype(highest: int) -> type[np.uint8] | type[np.uint16]:
    """Type of a label map whose labels go up to `highest`: uint8 or, past 255, uint16."""
    return np.uint8 if highest <= 255 else np.uint16


def require_finite(volume: AnyVolume) -> None:
    """Refuse a volume with NaN or infinite voxels.

    Raises:
        LeansegError: Naming the file and the number of such voxels.
    """
    if volume.dtype.kind not in "fc":
        return
    # Slice by slice: a mask of the whole volume would be one more copy of it.
    count = sum(int((~np.isfinite(section)).sum()) for section in volume.slabs(1))
    if count:
        raise LeansegError(
            f"{volume.path or 'the volume'}: {count} NaN or infinite of "
            f"{math.prod(volume.array_shape)} voxels; replace them by the background value "
            "(air in CT is -1024) or export the scan again"
        )
