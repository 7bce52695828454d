"""A series as a volume of which no voxel has been read yet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.volumes.dicom.find import find_series
from leanseg.volumes.dicom.read import choose_series, read_series, require_whole
from leanseg.volumes.dicom.tilt import upright_grid
from leanseg.volumes.dicom.values import integer
from leanseg.volumes.volume import StoredVolume

# What the libraries keep while reading.
_READER_BYTES = 4_000_000
# Per voxel of a slice while it is decoded and rescaled: as stored, exact, and masks.
_SLICE_BYTES = 24
_INT16 = np.iinfo(np.int16)


def open_series(
    source: str | Path,
    series: str | int | None = None,
    *,
    modality: str | None = None,
    phase: int | None = None,
    fill_missing: bool = False,
) -> StoredVolume:
    """A series whose headers have been read, and its voxels have not.

    Its type is float32 where the headers leave open whether int16 is enough.

    Args:
        source: A folder, zip file or one multi-frame file.
        series: As in `read_series`, and so are the others.
        modality: Take only a series of this modality, unless `series` chooses.
        phase: Number of the phase.
        fill_missing: Interpolate missing slices.

    Raises:
        FileFormatError: If a file is damaged, nothing fits, or several series fit.
        GeometryError: If the slices form no regular grid.
    """
    inventory = find_series(source)
    chosen = choose_series(inventory, series, modality)
    require_whole(inventory, chosen)
    stack = chosen.stack(phase)
    shape, affine = stack.shape, stack.affine_ras
    dtype = np.dtype(np.int16 if all(_fits(frame) for frame in stack.frames) else np.float32)
    reading = _READER_BYTES + 2 * _SLICE_BYTES * shape[0] * shape[1]
    if stack.tilt_degrees:
        # Sheared and upright voxels are there at the same time.
        reading += math.prod(shape) * dtype.itemsize
        shape, affine = upright_grid(shape, affine)
    return StoredVolume(
        Path(source),
        shape,
        dtype,
        affine,
        read=lambda: read_series(chosen, phase=phase, fill_missing=fill_missing),
        reading_bytes=reading,
    )


def _fits(frame: Any) -> bool:
    """Whether every value that a frame can hold is whole and fits into int16."""
    header = frame.file.header
    bits = integer(header, "BitsStored") or integer(header, "BitsAllocated") or 16
    signed = integer(header, "PixelRepresentation") == 1
    ends = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = [end * frame.slope + frame.intercept for end in ends]
    whole = float(frame.slope).is_integer() and float(frame.intercept).is_integer()
    return bool(whole and min(values) >= _INT16.min and max(values) <= _INT16.max)
