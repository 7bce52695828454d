"""Stored values to voxels in real units: rescaled slice by slice, padding made air."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes.dicom.files import (
    ImageFile,
    UnreadableError,
    named,
    read_header,
    require_package,
)
from leanseg.volumes.dicom.frames import Frame, frames_of
from leanseg.volumes.dicom.pixels import pixel_fault, stored_values
from leanseg.volumes.dicom.values import integer, number, text

AIR_HU = -1024
# Nothing in a body or beside it is thinner than air by so much: such values, -3024 or -2000 in
# most scans, mark what lies outside the circle that was reconstructed.
LOWEST_HU = -1500
# A declared padding value between these is a tissue too, and so is left as it is.
_TISSUE_HU = (-950, 3071)
INT16 = np.iinfo(np.int16)
_Voxels = NDArray[Any]


class DoesNotFitError(Exception):
    """A value that int16 does not hold."""


def grey_values(path: Path) -> _Voxels:
    """The image in one file with its rescale slope and intercept, of whatever kind it is.

    Args:
        path: Of one slice of a mask.

    Returns:
        (rows, columns).

    Raises:
        FileFormatError: If there is no such image, or not one alone.
        MissingDependencyError: If a package is needed for it.
    """
    require_package()
    with named(path):
        try:
            file = read_header(path, path)
            if file is None or not file.offset or file.n_frames != 1:
                raise UnreadableError("is no DICOM image of one frame")
            frame, fault = frames_of(file)[0], pixel_fault(file, of_labels=True)
            if not math.isfinite(frame.slope * frame.intercept):
                fault = "its RescaleSlope or RescaleIntercept makes no sense"
            if fault:
                raise UnreadableError(fault)
        except UnreadableError as error:
            raise UnreadableError(f"cannot be read as a slice ({error})") from None
        values: _Voxels = stored_values(frame) * np.float64(frame.slope) + frame.intercept
    return values


def is_whole(frame: Frame) -> bool:
    """Whether rescaling keeps whole numbers whole."""
    values = (frame.slope, frame.intercept)
    return all(value == int(value) and abs(value) <= INT16.max for value in values)


def surely_int16(frame: Frame) -> bool:
    """Whether int16 holds every value that the frame can have, by its header."""
    used = frame.file.used_bits
    signed = frame.file.stored_type.kind == "i"
    ends = (-(1 << (used - 1)), (1 << (used - 1)) - 1) if signed else (0, (1 << used) - 1)
    values = [end * frame.slope + frame.intercept for end in ends]
    return is_whole(frame) and min(values) >= INT16.min and max(values) <= INT16.max


def read_frame(frame: Frame, modality: str, out: _Voxels) -> None:
    """One slice in real units into `out`, (rows, columns).

    CT padding, declared (PixelPaddingValue) or not (below `LOWEST_HU`), becomes `AIR_HU`;
    other modalities have no value for it.

    Raises:
        DoesNotFitError: If `out` is int16, which holds no fractions, and not every value.
        FileFormatError: If the pixel data cannot be decoded.
        MissingDependencyError: If a package is needed for it.
    """
    if out.dtype == np.int16 and not is_whole(frame):
        raise DoesNotFitError
    stored, slope, intercept = stored_values(frame), frame.slope, frame.intercept
    is_ct = modality == "CT"
    if not is_ct and text(frame.file.header, "PhotometricInterpretation") == "MONOCHROME1":
        stored = _inverted(stored, frame.file)
    ends = [float(stored.min()) * slope + intercept, float(stored.max()) * slope + intercept]
    padded = _padding_mask(stored, frame) if is_ct else np.False_
    fits = min(ends) >= INT16.min and max(ends) <= INT16.max
    if fits and out.dtype == np.int16 and slope == 1 and stored.itemsize <= 2:
        # Modulo 2**16, which is exact since the result fits.
        values = stored.astype(np.int16) if stored.itemsize == 1 else stored.view(np.int16)
        np.add(values, np.int16(intercept), out=out)
        np.copyto(out, AIR_HU, where=padded)
        return
    exact = stored * np.float64(slope) + intercept
    np.copyto(exact, AIR_HU, where=padded)
    if out.dtype == np.int16 and (exact.min() < INT16.min or exact.max() > INT16.max):
        raise DoesNotFitError
    out[...] = exact


def _padding_mask(stored: _Voxels, frame: Frame) -> NDArray[np.bool_]:
    """Where a CT slice holds padding."""
    limit = (LOWEST_HU - frame.intercept) / frame.slope
    found: NDArray[np.bool_] = stored < limit if frame.slope > 0 else stored > limit
    declared = declared_padding(frame)
    if declared is not None and not is_tissue(frame, declared):
        found |= (stored >= declared[0]) & (stored <= declared[1])
    return found


def declared_padding(frame: Frame) -> tuple[int, int] | None:
    """The lowest and highest stored value that the header declares to be padding."""
    header = frame.file.header
    value = number(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(header, "PixelPaddingRangeLimit")
    ends = [_as_stored(int(end), frame.file) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, file: ImageFile) -> int:
    """A padding value in the type of the pixels: files mix up signed and unsigned ones."""
    bits = file.used_bits
    value &= (1 << bits) - 1
    signed = integer(file.header, "PixelRepresentation") == 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def is_tissue(frame: Frame, padding: tuple[int, int]) -> bool:
    """Whether declared padding of a CT slice coincides with values that bodies have."""
    ends = sorted(value * frame.slope + frame.intercept for value in padding)
    return ends[1] >= _TISSUE_HU[0] and ends[0] <= _TISSUE_HU[1]


def _inverted(stored: _Voxels, file: ImageFile) -> _Voxels:
    """MONOCHROME1 as MONOCHROME2: large values are bright."""
    if stored.dtype.kind == "i":
        return ~stored
    inverted: _Voxels = stored.dtype.type((1 << file.used_bits) - 1) - stored
    return inverted
