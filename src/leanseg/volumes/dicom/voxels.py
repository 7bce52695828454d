"""Frames to voxels in real units: rescaled slice by slice, padding made air, gaps filled."""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.geometry import Stack
from leanseg.volumes.dicom.pixels import check_codestreams, stored_frames
from leanseg.volumes.dicom.values import integer, number, text

AIR_HU = -1024
# Nothing in a body or beside it is thinner than air by so much: such values, -3024 or -2000 in
# most scans, mark what lies outside the circle that was reconstructed.
LOWEST_HU = -1500
# A declared padding value between these is a tissue too, and so is left as it is.
_TISSUE_HU = (-950, 3071)
# More threads than this wait for the disk and the memory, not for the processor.
_MOST_THREADS = 8
_INT16 = np.iinfo(np.int16)
_Voxels = NDArray[Any]


class _DoesNotFitError(Exception):
    """A value that int16 does not hold."""


def read_voxels(stack: Stack, modality: str) -> _Voxels:
    """The voxels of a stack in its own grid, missing slices interpolated linearly.

    CT padding, declared (PixelPaddingValue) or not (below `LOWEST_HU`), becomes `AIR_HU`.

    Args:
        stack: From `stacked`.
        modality: "CT" makes padding air; other modalities have no value for it.

    Returns:
        (slice, row, column): int16 where slope and intercept are whole numbers and all values
        fit, else float32.

    Raises:
        FileFormatError: If pixel data cannot be decoded.
        MissingDependencyError: If a package is needed for it.
    """
    check_codestreams(stack.frames[0].file)
    try:
        if all(_is_whole(frame) for frame in stack.frames):
            return _read(stack, modality, np.dtype(np.int16))
    except _DoesNotFitError:
        pass
    return _read(stack, modality, np.dtype(np.float32))


def _is_whole(frame: Frame) -> bool:
    values = (frame.slope, frame.intercept)
    return all(value == int(value) and abs(value) <= _INT16.max for value in values)


def _read(stack: Stack, modality: str, dtype: np.dtype[Any]) -> _Voxels:
    columns, rows, n_slices = stack.shape
    voxels = np.empty((n_slices, rows, columns), dtype)
    by_file: dict[ImageFile, list[tuple[Frame, int]]] = defaultdict(list)
    for frame, k in zip(stack.frames, stack.places, strict=True):
        by_file[frame.file].append((frame, k))

    def place(stored: _Voxels, frame: Frame, k: int) -> None:
        _rescale(stored, frame, modality == "CT", voxels[k])

    def read_file(file: ImageFile) -> None:
        with stored_frames(file) as stored:
            for frame, k in by_file[file]:
                place(stored(frame.index), frame, k)

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        if len(by_file) == len(stack.frames):
            list(pool.map(read_file, by_file))
        else:
            for file, frames in by_file.items():
                with stored_frames(file) as stored:
                    list(pool.map(lambda one, s=stored: place(s(one[0].index), *one), frames))
    _fill(voxels, stack)
    return voxels


def _rescale(stored: _Voxels, frame: Frame, is_ct: bool, out: _Voxels) -> None:
    """One slice in real units into `out`, both (rows, columns)."""
    slope, intercept = frame.slope, frame.intercept
    if not is_ct and text(frame.file.header, "PhotometricInterpretation") == "MONOCHROME1":
        stored = _inverted(stored, frame.file)
    ends = [float(stored.min()) * slope + intercept, float(stored.max()) * slope + intercept]
    padded = _padding_mask(stored, frame, min(ends)) if is_ct else None
    fits = min(ends) >= _INT16.min and max(ends) <= _INT16.max
    if fits and out.dtype == np.int16 and slope == 1 and stored.itemsize <= 2:
        # Modulo 2**16, which is exact since the result fits.
        values = stored.astype(np.int16) if stored.itemsize == 1 else stored.view(np.int16)
        np.add(values, np.int16(intercept), out=out)
    else:
        exact = stored * np.float64(slope) + intercept
        if padded is not None:
            exact[padded] = AIR_HU
        if out.dtype == np.int16 and (exact.min() < _INT16.min or exact.max() > _INT16.max):
            raise _DoesNotFitError
        out[...] = exact
    if padded is not None:
        out[padded] = AIR_HU


def _padding_mask(stored: _Voxels, frame: Frame, lowest_hu: float) -> NDArray[np.bool_] | None:
    """Where a CT slice holds padding: None where it holds none."""
    found: NDArray[np.bool_] | None = None
    if lowest_hu < LOWEST_HU:
        limit = (LOWEST_HU - frame.intercept) / frame.slope
        found = stored < limit if frame.slope > 0 else stored > limit
    declared = declared_padding(frame)
    if declared is not None and not is_tissue(frame, declared):
        low, high = declared
        mask: NDArray[np.bool_] = (stored >= low) & (stored <= high)
        found = mask if found is None else found | mask
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
    bits = integer(file.header, "BitsStored") or integer(file.header, "BitsAllocated") or 16
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
    bits = integer(file.header, "BitsStored") or 8 * stored.itemsize
    inverted: _Voxels = stored.dtype.type((1 << bits) - 1) - stored
    return inverted


def _fill(voxels: _Voxels, stack: Stack) -> None:
    """Interpolate missing slices between their neighbours, in place."""
    for k in stack.missing:
        below = max(place for place in stack.places if place < k)
        above = min(place for place in stack.places if place > k)
        weight = np.float32((k - below) / (above - below))
        values = voxels[below] * (1 - weight) + voxels[above] * weight
        voxels[k] = np.rint(values) if voxels.dtype == np.int16 else values


def outside_value(voxels: _Voxels, modality: str) -> float:
    """What lies beyond the slices: air in CT, else the lowest value there is."""
    return AIR_HU if modality == "CT" else float(voxels.min())
