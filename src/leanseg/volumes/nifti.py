"""NIfTI in and out: gzip by ISA-L, headers out of the ordinary by nibabel, geometry bit for bit."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, SpacingError
from leanseg.volumes.checks import squeezed_shape
from leanseg.volumes.nifti_header import SIZE, PlainHeader
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 1 << 20
# Deflate cannot pack more than 1032 bytes into one: a header that promises more is damaged.
_LARGEST_GZIP_RATIO = 1100

# nibabel reports header repairs through a logger; a logger of our own keeps them off stderr.
QUIET_LOGGER = logging.Logger("leanseg.nifti")
QUIET_LOGGER.addHandler(logging.NullHandler())


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file, gzipped or not, whatever its suffix says.

    The affine is nibabel's choice: sform where its code is set, else qform, else spacing alone.
    Integer voxels without scaling keep their type; all others become float32.

    Returns:
        The volume in native byte order and Fortran order, with the header as stored.

    Raises:
        FileFormatError: If the file is damaged, not NIfTI, or of a voxel type without a meaning
            here (colour, complex).
        GeometryError: If the grid is not 3-D (4-D with channels) or the affine is singular.
    """
    with _opened(path) as (stream, zipped):
        header = _read_header(stream, path)
        stored = _stored(header, path)
        shape = squeezed_shape(stored.shape, path)
        n_bytes = math.prod(shape) * stored.dtype.itemsize
        if stored.first_voxel + n_bytes > path.stat().st_size * (
            _LARGEST_GZIP_RATIO if zipped else 1
        ):
            raise _truncated(path)
        _skip(stream, stored.first_voxel - header.sizeof_hdr, path)
        array = _read_voxels(stream, shape, stored.dtype, stored.slope_inter, path)
        while zipped and stream.read(_BLOCK_BYTES):
            pass  # to the end, where gzip keeps its checksum
    return Volume(array=array, affine=stored.affine, path=path, header=header)


def read_grid(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64], np.dtype[Any]]:
    """What the header of a NIfTI file says of its voxels, without reading them.

    Returns:
        Shape as stored, affine to RAS+ mm, and the type in which `read_nifti` gives integers:
        float32 where they are scaled.

    Raises:
        FileFormatError: If the header is damaged or not that of a NIfTI file.
    """
    with _opened(path) as (stream, _):
        stored = _stored(_read_header(stream, path), path)
    unscaled = stored.slope_inter == (1.0, 0.0)
    return stored.shape, stored.affine, stored.dtype if unscaled else np.dtype(np.float32)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """The file's bytes, unpacked where it is gzipped, and whether it is."""
    from isal import igzip, isal_zlib

    damage: Any = (EOFError, isal_zlib.error, igzip.BadGzipFile)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            yield (igzip.IGzipFile(fileobj=file, mode="rb") if zipped else file), zipped
    except damage as error:
        msg = f"{path}: the gzip data are damaged or cut short ({error}); copy or export it again"
        raise FileFormatError(msg) from error


def _truncated(path: Path) -> FileFormatError:
    return FileFormatError(
        f"{path}: the file is cut short, it holds fewer voxels than its header says; "
        "copy or export it again"
    )


def _not_nifti(path: Path, why: str) -> FileFormatError:
    return FileFormatError(f"{path}: not a NIfTI file ({why}); export the scan as NIfTI again")


@dataclass(frozen=True)
class _Stored:
    """What a header says of the voxels, its repairs made.

    Attributes:
        shape: Of the array.
        dtype: Of the voxels in the file.
        first_voxel: Byte at which they begin.
        slope_inter: What they are multiplied by, and what is added then.
        affine: To RAS+ mm.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first_voxel: int
    slope_inter: tuple[float, float]
    affine: NDArray[np.float64]


def _stored(header: PlainHeader | Nifti1Header, path: Path) -> _Stored:
    if isinstance(header, PlainHeader):
        return _Stored(
            header.shape, header.dtype, header.first_voxel, header.slope_inter, header.affine
        )
    checked = _checked(header, path)
    return _Stored(
        tuple(checked.get_data_shape()),
        _voxel_type(checked, path),
        _voxel_offset(checked, path),
        _slope_inter(checked, path),
        _affine(checked, path),
    )


def _read_header(stream: IO[bytes], path: Path) -> PlainHeader | Nifti1Header:
    """The header exactly as stored, in its own byte order."""
    block = stream.read(SIZE)
    if len(block) < SIZE:
        raise _not_nifti(path, "it is shorter than a header")
    plain = PlainHeader.parse(block)
    if plain is not None:
        return plain
    from nibabel import Nifti1Header, Nifti2Header

    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    if 540 in sizes:
        block += stream.read(540 - SIZE)
        if len(block) < 540:
            raise _not_nifti(path, "it is shorter than a header")
        kind: Any = Nifti2Header
    elif SIZE in sizes:
        kind = Nifti1Header
    else:
        raise _not_nifti(path, "it does not begin with a NIfTI header")
    header: Nifti1Header = kind(block, check=False)
    if header["magic"].item() != kind.single_magic:
        raise _not_nifti(path, f"its magic string is {header['magic'].item()!r}")
    return header


def _checked(header: Nifti1Header, path: Path) -> Nifti1Header:
    """A copy with nibabel's repairs, such as a missing qfac."""
    from nibabel.spatialimages import HeaderDataError

    _require_spacing(header, path)
    checked: Nifti1Header = header.copy()
    try:
        checked.check_fix(logger=QUIET_LOGGER)
    except (HeaderDataError, ValueError, OverflowError) as error:
        # Besides its own error, nibabel stumbles over offsets that are infinite or NaN.
        raise _bad_header(path, error) from error
    return checked


def _require_spacing(header: Nifti1Header, path: Path) -> None:
    """Refuse a spacing of 0 where it counts: nibabel would take it for 1 mm, a made-up volume.

    Raises:
        SpacingError: Naming the axis.
    """
    if header["sform_code"] > 0:
        return
    n_axes = min(max(int(header["dim"][0]), 0), 3)
    for axis, spacing in enumerate(header["pixdim"][1 : n_axes + 1]):
        if spacing == 0:
            msg = (
                f"{path}: its header gives a voxel spacing of 0 mm along axis {axis + 1} of "
                f"{n_axes}; write the true spacing into it or export the scan again"
            )
            raise SpacingError(msg)


def _bad_header(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{path}: the NIfTI header is wrong ({error}); export the scan again")


def _voxel_type(header: Nifti1Header, path: Path) -> np.dtype[Any]:
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf":
        label = header.get_value_label("datatype")
        msg = (
            f"{path}: voxels of type {label} are not grey values; "
            "convert the scan to an integer or float type first"
        )
        raise FileFormatError(msg)
    return dtype


def _affine(header: Nifti1Header, path: Path) -> NDArray[np.float64]:
    from nibabel.spatialimages import HeaderDataError

    try:
        # Infinite spacing or quaternions: the volume refuses what comes of them.
        with np.errstate(all="ignore"):
            return np.array(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise _bad_header(path, error) from error


def _slope_inter(header: Nifti1Header, path: Path) -> tuple[float, float]:
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise _bad_header(path, error) from error
    return (1.0, 0.0) if slope is None else (slope, inter)


def _voxel_offset(header: Nifti1Header, path: Path) -> int:
    """Byte at which the voxels begin: a float in NIfTI-1."""
    try:
        offset = int(header.get_data_offset())
    except (ValueError, OverflowError) as error:
        raise _bad_header(path, error) from error
    return max(offset, header.single_vox_offset)


def _skip(stream: IO[bytes], n_bytes: int, path: Path) -> None:
    if len(stream.read(n_bytes)) < n_bytes:
        raise _truncated(path)


def _read_voxels(
    stream: IO[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    slope_inter: tuple[float, float],
    path: Path,
) -> NDArray[Any]:
    """The voxels in Fortran order, with no second array of their size beside the result."""
    unscaled = slope_inter == (1.0, 0.0)
    n_voxels = math.prod(shape)
    if unscaled and (dtype.kind in "iu" or dtype.newbyteorder("=") == np.float32):
        voxels = np.empty(n_voxels, dtype=dtype)
        _fill(stream, voxels.view(np.uint8).data, path)
        if not dtype.isnative:
            voxels = voxels.byteswap(inplace=True).view(dtype.newbyteorder("="))
        return voxels.reshape(shape, order="F")
    scaled = np.empty(n_voxels, dtype=np.float32)
    block = np.empty(_BLOCK_BYTES // dtype.itemsize, dtype=dtype)
    for start in range(0, n_voxels, len(block)):
        section = block[: n_voxels - start]
        _fill(stream, section.view(np.uint8).data, path)
        with np.errstate(over="ignore", invalid="ignore"):
            if not unscaled:
                # In double precision, as nibabel does.
                section = section.astype(np.float64) * slope_inter[0] + slope_inter[1]
            scaled[start : start + len(section)] = section
    return scaled.reshape(shape, order="F")


def _fill(stream: IO[bytes], view: memoryview, path: Path) -> None:
    """Read straight into the memory that will hold the bytes."""
    done = 0
    while done < len(view):
        n_read = stream.readinto(view[done : done + _BLOCK_BYTES])  # type: ignore[attr-defined]
        if not n_read:
            raise _truncated(path)
        done += n_read
