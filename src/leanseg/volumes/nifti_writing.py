"""Writing NIfTI: gzip by ISA-L, a scan's geometry kept bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes.atomic import written_whole
from leanseg.volumes.nifti import QUIET_LOGGER
from leanseg.volumes.nifti_header import PlainHeader

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_GZIP_LEVEL = 2
_NIFTI1_LARGEST_AXIS = 32767

_CLEARED_NUMBERS = (
    *("cal_max", "cal_min", "glmax", "glmin", "slice_start", "slice_end", "slice_code"),
    *("slice_duration", "toffset", "intent_code", "intent_p1", "intent_p2", "intent_p3"),
    *("extents", "session_error"),
)
_CLEARED_TEXTS = ("intent_name", "aux_file", "db_name", "data_type")


def write_nifti(
    path: Path,
    array: NDArray[Any],
    affine: NDArray[np.float64],
    header: object = None,
    description: str = "leanseg",
) -> None:
    """Write a NIfTI file, gzipped where the name ends in .gz, atomically and reproducibly.

    Args:
        path: Ends in .nii or .nii.gz.
        array: Voxels (i, j, k) or (i, j, k, channel), integer or float.
        affine: To RAS+ mm.
        header: A NIfTI header. Where it says the same affine, its qform, sform, codes, pixdim,
            units and byte order are kept bit for bit; otherwise a fresh header gets the affine
            as sform (code 2) and, where it has no shear, as qform.
        description: For the header's text field.

    Raises:
        LeansegError: If the file cannot be written.
    """
    from isal import igzip

    result = _header_for(array, affine, header)
    result["descrip"] = description.encode()[:79]
    with written_whole(path) as temporary, temporary.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the gzip header: same mask, same bytes.
            with igzip.IGzipFile("", "wb", _GZIP_LEVEL, fileobj=file, mtime=0) as zipped:
                _write(zipped, result, array)
        else:
            _write(file, result, array)


def _header_for(
    array: NDArray[Any], affine: NDArray[np.float64], header: object
) -> PlainHeader | Nifti1Header:
    wide = max(array.shape) > _NIFTI1_LARGEST_AXIS
    if isinstance(header, PlainHeader) and not wide and np.array_equal(header.affine, affine):
        plain = header.copy()
        _describe(plain, array)
        if array.dtype.kind in "iuf" and plain.set_dtype(array.dtype):
            return plain
    from nibabel import Nifti1Header, Nifti2Header

    if isinstance(header, PlainHeader):
        header = Nifti1Header(header.binaryblock, header.order, check=False)
    result: Nifti1Header
    if isinstance(header, Nifti1Header) and _says(header, affine):
        result = header.copy()
    else:
        result = Nifti2Header() if wide else Nifti1Header()
        _set_affine(result, affine)
    if wide and not isinstance(result, Nifti2Header):
        result = Nifti2Header()
        _set_affine(result, affine)
    result.extensions.clear()
    result.set_data_dtype(array.dtype)
    result["magic"] = result.single_magic
    result["vox_offset"] = result.single_vox_offset
    _describe(result, array)
    return result


def _describe(header: PlainHeader | Nifti1Header, array: NDArray[Any]) -> None:
    """Shape of an array that holds what it says; nothing else about it."""
    # Not set_data_shape, which would also reset the pixdim of the axes that are gone.
    header["dim"] = [array.ndim, *array.shape, *([1] * (7 - array.ndim))]
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    # What described the scan's grey values, acquisition or source says nothing of this array.
    for name in _CLEARED_NUMBERS:
        if name in header:
            header[name] = 0
    for name in _CLEARED_TEXTS:
        if name in header:
            header[name] = b""


def _says(header: Nifti1Header, affine: NDArray[np.float64]) -> bool:
    from nibabel.spatialimages import HeaderDataError

    checked = header.copy()
    try:
        checked.check_fix(logger=QUIET_LOGGER)
        with np.errstate(all="ignore"):
            return np.array_equal(checked.get_best_affine(), affine)
    except (HeaderDataError, ValueError, OverflowError):
        return False


def _set_affine(header: Nifti1Header, affine: NDArray[np.float64]) -> None:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    orthogonal = np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    header.set_qform(affine, 2 if orthogonal else 0)
    header.set_sform(affine, 2)
    header.set_xyzt_units("mm")


def _write(stream: Any, header: PlainHeader | Nifti1Header, array: NDArray[Any]) -> None:
    """Header, empty extension flag, voxels in Fortran order."""
    stream.write(header.binaryblock)
    stream.write(bytes(4))
    dtype = header.dtype if isinstance(header, PlainHeader) else header.get_data_dtype()
    # Blocks of slices bound the memory of a cast or of a change from C order; for uint8 in C
    # order, 64 of them use each cache line once.
    last = array.ndim - 1
    step = 64 if last == 2 else 1
    for start in range(0, array.shape[last], step):
        block = np.asfortranarray(array[..., start : start + step], dtype=dtype)
        stream.write(block.reshape(-1, order="F").view(np.uint8).data)
