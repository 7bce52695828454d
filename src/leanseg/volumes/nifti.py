"""NIfTI in and out: gzip by ISA-L, headers out of the ordinary by nibabel, geometry bit for bit.

Importing nibabel takes longer than reading many a scan, and nearly all headers need none of its
care: every field is what the standard asks for. Those are read here, with nibabel's results to
the last bit; all others (and NIfTI-2) are left to nibabel and its repairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, SpacingError
from leanseg.files import written_whole
from leanseg.volumes.axes import largest_cosine
from leanseg.volumes.placing import XFORM_CODES, placed
from leanseg.volumes.volume import StoredVolume, Volume, is_sound, squeezed_shape

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_LEVEL = 2
# Deflate cannot pack more than 1032 bytes into one: a header that promises more is damaged.
_LARGEST_GZIP_RATIO = 1100
_BLOCK_BYTES = 1 << 20
# Blocks of a file and of its unpacked form.
_READER_BYTES = 4_000_000
_NIFTI1_LARGEST_AXIS = 32767

# Format and offset of the NIfTI-1 fields that place and type the voxels, named as nibabel does.
_FIELDS: Any = {
    **{"sizeof_hdr": ("i4", 0), "regular": ("S1", 38), "dim_info": ("u1", 39)},
    **{"dim": ("8i2", 40), "datatype": ("i2", 70), "bitpix": ("i2", 72), "pixdim": ("8f4", 76)},
    **{"vox_offset": ("f4", 108), "scl_slope": ("f4", 112), "scl_inter": ("f4", 116)},
    **{"xyzt_units": ("u1", 123), "descrip": ("S80", 148)},
    **{"qform_code": ("i2", 252), "sform_code": ("i2", 254)},
    **{f"quatern_{axis}": ("f4", 256 + 4 * n) for n, axis in enumerate("bcd")},
    **{f"qoffset_{axis}": ("f4", 268 + 4 * n) for n, axis in enumerate("xyz")},
    **{f"srow_{axis}": ("4f4", 280 + 16 * n) for n, axis in enumerate("xyz")},
    "magic": ("S4", 344),
}
_PLACING = {"regular", "dim_info", "pixdim", "xyzt_units", "qform_code", "sform_code"}
_PLACING |= {name for name in _FIELDS if name.startswith(("quatern", "qoffset", "srow"))}
_NIFTI_1: np.dtype[Any] = np.dtype(_FIELDS)
_MAGIC = {348: b"n+1", 540: b"n+2\0\r\n\x1a\n"}
_DTYPES = {
    **{2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8"},
    **{256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"},
}


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """A NIfTI header as stored, and what it says once repaired.

    Attributes:
        record: The fields that place the voxels, in the file's byte order.
        shape: Of the array as stored.
        dtype: Of the voxels as stored, in the file's byte order.
        first_voxel: Byte at which they begin.
        slope: What stored values are multiplied by.
        inter: What is added then.
        affine: To RAS+ mm, as `leanseg.volumes.placing` decides.
        notes: What is to be said of that.
    """

    record: NDArray[Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first_voxel: int
    slope: float
    inter: float
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def read_dtype(self) -> np.dtype[Any]:
        """Type in which the voxels are read: integers keep theirs unless they are scaled."""
        is_kept = self.dtype.kind in "iu" and (self.slope, self.inter) == (1.0, 0.0)
        return self.dtype.newbyteorder("=") if is_kept else np.dtype(np.float32)


def open_nifti(path: Path, geometry: str = "auto") -> StoredVolume:
    """A NIfTI-1 or NIfTI-2 file, gzipped or not, whatever its suffix says.

    Integer voxels without scaling keep their type; all others become float32. The array is in
    native byte order and Fortran order.

    Args:
        path: The file.
        geometry: Which of sform and qform counts, as in `leanseg.volumes.placing.placed`.

    Raises:
        FileFormatError: If the header is damaged, not NIfTI, or of a voxel type without a meaning
            here (colour, complex), or the file is too short for its voxels.
        GeometryError: If the grid is not 3-D (4-D with channels) or the affine is singular.
    """
    with _opened(path) as (stream, zipped):
        header = _read_header(stream, path, geometry)
    shape = squeezed_shape(header.shape, path)
    n_bytes = header.first_voxel + math.prod(shape) * header.dtype.itemsize
    if n_bytes > path.stat().st_size * (_LARGEST_GZIP_RATIO if zipped else 1):
        raise _truncated(path)
    parts = partial(_parts, path, header, shape)

    def read() -> Volume:
        (array,) = parts(shape[-1], 0)
        return Volume(array=array, affine=header.affine, path=path, header=header)

    # In the file the channels come last: a slab of them all lies in as many places.
    slabs = parts if len(shape) == 3 else None
    dtype, notes = header.read_dtype, header.notes
    return StoredVolume(
        path, shape, dtype, header.affine, read, slabs, header, _READER_BYTES, notes
    )


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
    msg = f"{path}: the file is cut short, it holds fewer voxels than its header says"
    return FileFormatError(f"{msg}; copy or export it again")


def _not_nifti(path: Path, why: str) -> FileFormatError:
    return FileFormatError(f"{path}: not a NIfTI file ({why}); export the scan as NIfTI again")


def _read_header(stream: IO[bytes], path: Path, geometry: str) -> NiftiHeader:
    block = stream.read(max(_MAGIC))
    for size in _MAGIC:
        if size in {int.from_bytes(block[:4], order) for order in ("little", "big")}:
            block = block[:size]
            if len(block) == size:
                ordinary = _ordinary(block, geometry) if size == 348 else None
                return ordinary or _repaired(block, path, geometry)
    raise _not_nifti(path, "it does not begin with a whole NIfTI header")


def _ordinary(block: bytes, geometry: str = "auto") -> NiftiHeader | None:
    """A NIfTI-1 header in which nothing needs repair; None for all others."""
    little = int.from_bytes(block[:4], "little") == 348
    record: NDArray[Any] = np.ndarray((), _NIFTI_1.newbyteorder("<" if little else ">"), block)
    n_axes, pixdim, offset = int(record["dim"][0]), record["pixdim"], float(record["vox_offset"])
    slope, inter = float(record["scl_slope"]), float(record["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        slope, inter = 1.0, 0.0
    is_ordinary = (
        3 <= n_axes <= 7
        and (record["dim"][1 : n_axes + 1] > 0).all()
        # FreeSurfer's way of writing long vectors.
        and tuple(record["dim"][1:4]) != (27307, 1, 6)
        and int(record["datatype"]) in _DTYPES
        and record["magic"] == _MAGIC[348]
        and np.isfinite(pixdim[1:4]).all()
        and (pixdim[1:4] > 0).all()
        and pixdim[0] in (-1, 1)
        and math.isfinite(offset)
        and offset >= 348 + 4
        and {int(record["qform_code"]), int(record["sform_code"])} <= set(XFORM_CODES)
        and math.isfinite(inter)
    )
    if not is_ordinary:
        return None
    shape = tuple(int(n) for n in record["dim"][1 : n_axes + 1])
    dtype = np.dtype(_DTYPES[int(record["datatype"])]).newbyteorder("<" if little else ">")
    return NiftiHeader(record, shape, dtype, int(offset), slope, inter, *placed(record, geometry))


def _repaired(block: bytes, path: Path, geometry: str) -> NiftiHeader:
    """Any header, through nibabel and its repairs, such as that of a missing qfac."""
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    kind: Any = Nifti1Header if len(block) == 348 else Nifti2Header
    header = kind(block, check=False)
    record: NDArray[Any] = header.structarr.copy()
    if header["magic"].item() != kind.single_magic:
        raise _not_nifti(path, f"its magic string is {header['magic'].item()!r}")
    # nibabel reports repairs through a logger; one of our own keeps them off stderr.
    quiet = logging.Logger("leanseg.nifti")
    quiet.addHandler(logging.NullHandler())
    try:
        # Infinite spacing or quaternions: the volume refuses what comes of them.
        with np.errstate(all="ignore"):
            header.check_fix(logger=quiet)
            slope, inter = header.get_slope_inter()
            affine, notes = placed(record, geometry)
            first_voxel = max(int(header.get_data_offset()), header.single_vox_offset)
    except (HeaderDataError, ValueError, OverflowError) as error:
        # Besides its own error, nibabel stumbles over offsets that are infinite or NaN.
        msg = f"{path}: the NIfTI header is wrong ({error}); export the scan again"
        raise FileFormatError(msg) from error
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf":
        msg = f"{path}: voxels of type {header.get_value_label('datatype')} are not grey values"
        raise FileFormatError(f"{msg}; convert the scan to an integer or float type first")
    slope, inter = (1.0, 0.0) if slope is None else (slope, inter)
    if not is_sound(affine):
        _require_spacing(record, path)
    shape = header.get_data_shape()
    return NiftiHeader(record, shape, dtype, first_voxel, slope, inter, affine, notes)


def _require_spacing(record: NDArray[Any], path: Path) -> None:
    """Say that it is a spacing of 0 by which a header places no voxel, where it is.

    Raises:
        SpacingError: Naming the axis.
    """
    n_axes = min(max(int(record["dim"][0]), 0), 3)
    for axis in np.flatnonzero(record["pixdim"][1 : n_axes + 1] == 0):
        msg = f"{path}: its header gives a voxel spacing of 0 mm along axis {axis + 1} of {n_axes}"
        raise SpacingError(f"{msg}; write the true spacing into it or export the scan again")


def _parts(
    path: Path, header: NiftiHeader, shape: tuple[int, ...], length: int, start: int
) -> Iterator[NDArray[Any]]:
    """The array from index `start` of its last axis on, in parts of some length along it."""
    plane = math.prod(shape[:-1])
    with _opened(path) as (stream, zipped):
        stream.seek(header.first_voxel + start * plane * header.dtype.itemsize)
        for first in range(start, shape[-1], length):
            n = min(length, shape[-1] - first)
            yield _read_voxels(stream, n * plane, header, path).reshape((*shape[:-1], n), order="F")
        while zipped and stream.read(_BLOCK_BYTES):
            pass  # to the end, where gzip keeps its checksum


def _read_voxels(stream: IO[bytes], n_voxels: int, header: NiftiHeader, path: Path) -> NDArray[Any]:
    """The next voxels, with no second array of their size beside the result."""
    dtype, native = header.dtype, header.dtype.newbyteorder("=")
    unscaled = (header.slope, header.inter) == (1.0, 0.0)
    if unscaled and native == header.read_dtype:
        voxels = np.empty(n_voxels, dtype=dtype)
        _fill(stream, voxels.view(np.uint8).data, path)
        return voxels if dtype.isnative else voxels.byteswap(inplace=True).view(native)
    scaled = np.empty(n_voxels, dtype=np.float32)
    block = np.empty(_BLOCK_BYTES // dtype.itemsize, dtype=dtype)
    for start in range(0, n_voxels, len(block)):
        section = block[: n_voxels - start]
        _fill(stream, section.view(np.uint8).data, path)
        with np.errstate(over="ignore", invalid="ignore"):
            if not unscaled:
                # In double precision, as nibabel does.
                section = section.astype(np.float64) * header.slope + header.inter
            scaled[start : start + len(section)] = section
    return scaled


def _fill(stream: IO[bytes], view: memoryview, path: Path) -> None:
    """Read straight into the memory that will hold the bytes."""
    done = 0
    while done < len(view):
        n_read = stream.readinto(view[done : done + _BLOCK_BYTES])  # type: ignore[attr-defined]
        if not n_read:
            raise _truncated(path)
        done += n_read


def write_nifti(
    path: Path,
    array: NDArray[Any],
    affine: NDArray[np.float64],
    header: NiftiHeader | None = None,
) -> None:
    """Write a NIfTI file, gzipped where the name ends in .gz, atomically and reproducibly.

    Args:
        path: Ends in .nii or .nii.gz.
        array: Voxels (i, j, k) or (i, j, k, channel), of an integer type, float32 or float64.
        affine: To RAS+ mm.
        header: Of the scan. Where it says the same affine, its qform, sform, codes, pixdim,
            units and byte order are kept bit for bit; otherwise a fresh header gets the affine
            as sform (code 2) and, where it has no shear, as qform.

    Raises:
        LeansegError: If the file cannot be written.
    """
    from isal import igzip

    record = _new_record(array, affine, header)
    dtype = array.dtype.newbyteorder(record.dtype["bitpix"].byteorder)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the gzip header: same mask, same bytes.
            with igzip.IGzipFile("", "wb", _GZIP_LEVEL, fileobj=file, mtime=0) as zipped:
                _write(zipped, record, array, dtype)
        else:
            _write(file, record, array, dtype)


def _new_record(
    array: NDArray[Any], affine: NDArray[np.float64], header: NiftiHeader | None
) -> NDArray[Any]:
    """The header of an array: what places the voxels from the scan's, all else of its own."""
    wide = max(array.shape) > _NIFTI1_LARGEST_AXIS
    fits = header is not None and np.array_equal(header.affine, affine)
    if header is None or not fits or (wide and header.record.dtype.itemsize == 348):
        placing = _placing_record(affine, wide=wide)
    else:
        placing = header.record
    record: NDArray[Any] = np.zeros((), placing.dtype)
    for name in _PLACING & set(placing.dtype.names or ()):
        record[name] = placing[name]
    record["descrip"] = b"leanseg"
    size = record.dtype.itemsize
    record["sizeof_hdr"], record["magic"], record["vox_offset"] = size, _MAGIC[size], size + 4
    codes = {np.dtype(name): code for code, name in _DTYPES.items()}
    record["datatype"] = codes[array.dtype.newbyteorder("=")]
    record["bitpix"] = 8 * array.dtype.itemsize
    record["dim"] = [array.ndim, *array.shape, *([1] * (7 - array.ndim))]
    record["scl_slope"] = 1.0
    return record


def _placing_record(affine: NDArray[np.float64], *, wide: bool) -> NDArray[Any]:
    from nibabel import Nifti1Header, Nifti2Header

    header = Nifti2Header() if wide else Nifti1Header()
    header.set_qform(affine, 2 if largest_cosine(affine) <= 1e-5 else 0)
    header.set_sform(affine, 2)
    header.set_xyzt_units("mm")
    record: NDArray[Any] = header.structarr
    return record


def _write(stream: Any, record: NDArray[Any], array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Header, empty extension flag, voxels in Fortran order."""
    stream.write(record.tobytes())
    stream.write(bytes(4))
    # Blocks of slices bound the memory of a cast or of a change from C order; for uint8 in C
    # order, 64 of them use each cache line once.
    last = array.ndim - 1
    step = 64 if last == 2 else 1
    for start in range(0, array.shape[last], step):
        block = np.asfortranarray(array[..., start : start + step], dtype=dtype)
        stream.write(block.reshape(-1, order="F").view(np.uint8).data)
