"""What the header of a scan promises, so that memory can be reckoned before a voxel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError
from leanseg.volumes.archive import unpacked
from leanseg.volumes.checks import squeezed_shape
from leanseg.volumes.volume import Volume

# Blocks of a file and of its unpacked form, and what the libraries keep while reading.
_READER_BYTES = 4_000_000
# Per voxel of a DICOM slice while it is decoded and rescaled: as stored, exact, and masks.
_DICOM_SLICE_BYTES = 24


@dataclass(frozen=True)
class Promise:
    """A scan as `read_volume` would give it, without its voxels.

    Attributes:
        volume: Shape, affine and voxel type; its array takes no memory and holds zeros.
        reading_bytes: What reading holds besides the array, at most.
    """

    volume: Volume
    reading_bytes: int

    @property
    def n_bytes(self) -> int:
        """Size of the voxels in memory."""
        return int(self.volume.array.size) * self.volume.array.itemsize


def promised(path: str | Path, **dicom: Any) -> Promise:
    """What `read_volume` with the same arguments would give, from headers alone.

    Where a header leaves open whether voxels need 2 or 4 bytes, 4 are assumed.

    Raises:
        FileFormatError: If there is no such file, or its header cannot be read.
        GeometryError: If it is not a 3-D grid (4-D with channels) with an invertible affine.
    """
    from leanseg.volumes.io import volume_suffix

    given, path = Path(path), unpacked(Path(path))
    suffix = volume_suffix(path)
    if path.is_dir() or suffix is None:
        return _of_dicom(given, dicom)
    if not path.is_file():
        msg = f"{given}: there is no such file; check the name"
        raise FileFormatError(msg)
    return _of_nifti(path) if suffix.startswith(".nii") else _of_itk(path)


def _promise(
    path: Path,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    dtype: np.dtype[Any],
    reading_bytes: int,
) -> Promise:
    """`dtype` as stored: other floats than float32 become that."""
    kind = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    # Without strides: an array of any size in a few bytes.
    array = np.broadcast_to(np.zeros((), dtype=kind), shape)
    return Promise(Volume(array, affine, path), reading_bytes + _READER_BYTES)


def _of_nifti(path: Path) -> Promise:
    from leanseg.volumes.nifti import read_grid

    shape, affine, dtype = read_grid(path)
    return _promise(path, squeezed_shape(shape, path), affine, dtype, 0)


def _of_itk(path: Path) -> Promise:
    from leanseg.volumes.itk import read_itk_header

    shape, affine, dtype = read_itk_header(path)
    # Compressed voxels are read whole before they are unpacked, and floats are converted after.
    extra = path.stat().st_size
    if dtype.kind == "f" and dtype != np.float32:
        extra += math.prod(shape) * dtype.itemsize
    return _promise(path, shape, affine, dtype, extra)


def _of_dicom(path: Path, options: dict[str, Any]) -> Promise:
    from leanseg.volumes.dicom import open_series

    scan = open_series(path, **options)
    columns, rows, n_slices = scan.stack.shape
    extra = 2 * _DICOM_SLICE_BYTES * columns * rows
    if scan.stack.tilt_degrees:
        # Sheared and upright voxels are there at the same time.
        extra += columns * rows * n_slices * scan.largest_dtype.itemsize
    return _promise(path, scan.shape, scan.affine, scan.largest_dtype, extra)
