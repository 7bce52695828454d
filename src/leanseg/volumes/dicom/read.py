"""Reading a series: as a whole volume, or slab by slab in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.geometry import Stack, upright
from leanseg.volumes.dicom.inventory import Inventory, choose_series, find_series
from leanseg.volumes.dicom.pixels import compressed_bytes
from leanseg.volumes.dicom.series import Series
from leanseg.volumes.dicom.voxels import AIR_HU, DoesNotFitError, read_frame, surely_int16
from leanseg.volumes.volume import StoredVolume, Volume

# More threads than this wait for the disk and the memory, not for the processor.
_MOST_THREADS = 8
# So many slices are resampled at a time where the gantry was tilted.
_BLOCK = 64
# What the libraries keep while reading; and, per voxel of a slice that is decoded and rescaled:
# as stored, exact, and masks.
_READER_BYTES, _SLICE_BYTES = 4_000_000, 24
_INT16, _FLOAT32 = np.dtype(np.int16), np.dtype(np.float32)
_Voxels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Slices:
    """The slices of a scan, whose voxels are read when they are asked for.

    Attributes:
        stack: The slices.
        modality: "CT" makes padding air, and what lies outside of tilted slices too.
        path: What the user gave.
    """

    stack: Stack
    modality: str
    path: Path

    def slabs(self, n_planes: int, start: int = 0) -> Iterator[_Voxels]:
        """The volume in int16 in parts along its last axis, each (i, j, at most `n_planes`)."""
        for first, slab in self._sheared_slabs(n_planes, _INT16, start):
            yield self._upright(slab, first).transpose(2, 1, 0)

    def read(self) -> Volume:
        """The whole volume: int16 where all values are whole and fit, else float32."""
        try:
            voxels = self._read(_INT16)
        except DoesNotFitError:
            voxels = self._read(_FLOAT32)
        return Volume(voxels.transpose(2, 1, 0), self.stack.grid[1], self.path)

    def _read(self, dtype: np.dtype[Any]) -> _Voxels:
        """All slices in `dtype`: (slice, row, column)."""
        shape, _ = self.stack.grid
        if not self.stack.tilt_degrees:
            return next(self._sheared_slabs(shape[2], dtype))[1]
        voxels = np.empty(shape[::-1], dtype)
        for first, slab in self._sheared_slabs(_BLOCK, dtype):
            voxels[first : first + len(slab)] = self._upright(slab, first)
        return voxels

    def _upright(self, slab: _Voxels, first: int) -> _Voxels:
        if not self.stack.tilt_degrees:
            return slab
        return upright(slab, first, self.stack.shape, self.stack.affine_ras, self._outside)

    @cached_property
    def _outside(self) -> float:
        """What lies beyond tilted slices: air in CT, else the lowest value there is."""
        if self.modality == "CT":
            return AIR_HU
        return min(float(slab.min()) for _, slab in self._sheared_slabs(_BLOCK, _FLOAT32))

    def _sheared_slabs(
        self, n_planes: int, dtype: np.dtype[Any], start: int = 0
    ) -> Iterator[tuple[int, _Voxels]]:
        """The slices as stored from `start` on, missing ones interpolated.

        Yields:
            The index of the first slice, and (at most `n_planes`, row, column).
        """
        columns, rows, n_slices = self.stack.shape
        if self.stack.frames[0].file.length is None:
            # Before room is made: a file may promise more than its bytes can hold.
            compressed_bytes(self.stack.frames[0])
        frame_at = dict(zip(self.stack.places, self.stack.frames, strict=True))
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        for first in range(start, n_slices, n_planes):
            planes = range(first, min(first + n_planes, n_slices))
            slab = np.empty((len(planes), rows, columns), dtype)
            frames = [frame_at[k] for k in planes if k in frame_at]
            places = [slab[k - first] for k in planes if k in frame_at]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(read_frame, frames, repeat(self.modality), places))
            for k in self.stack.missing:
                if k in planes:
                    slab[k - first] = self._interpolated(k, frame_at, slab[0])
            yield first, slab

    def _interpolated(self, k: int, frame_at: dict[int, Frame], like: _Voxels) -> _Voxels:
        """A missing slice, linearly between its neighbours."""
        below = max(place for place in frame_at if place < k)
        above = min(place for place in frame_at if place > k)
        ends = np.empty((2, *like.shape), like.dtype)
        for place, end in zip((below, above), ends, strict=True):
            read_frame(frame_at[place], self.modality, end)
        weight = np.float32((k - below) / (above - below))
        values: _Voxels = ends[0] * (1 - weight) + ends[1] * weight
        return np.rint(values) if like.dtype == _INT16 else values


def open_series(
    source: str | Path,
    series: str | int | None = None,
    *,
    modality: str | None = None,
    phase: int | None = None,
    fill_missing: bool = False,
) -> StoredVolume:
    """Open a DICOM series; no pixel data are read yet.

    Args:
        source: A folder, zip file, or one multi-frame file.
        series: Which one, as in `choose_series`.
        modality: Take only a series of this modality, unless `series` chooses.
        phase: Number of the phase (from 1, in the order of `Series.phases`).
        fill_missing: Interpolate missing slices linearly instead of refusing.

    Returns:
        Voxels (column, row, slice), slices ascending along row x column direction; int16 where
        the rescaled values are whole and fit, else float32. CT is in Hounsfield units. It streams
        where the headers tell that int16 holds every voxel; for others the wider type is named
        until all is read.

    Raises:
        FileFormatError: If a file is damaged, nothing fits, or several series fit.
        GeometryError: If the slices form no regular grid, or some are missing.
    """
    inventory = find_series(source)
    chosen = choose_series(inventory, series, modality)
    require_whole(inventory, chosen)
    stack = chosen.stack(phase)
    if stack.missing and not fill_missing:
        shown = ", ".join(stack.missing_names[:5]) + (", ..." if len(stack.missing) > 5 else "")
        msg = f"{chosen.path}: of {stack.shape[2]} slices in {chosen.name} these are missing: "
        raise GeometryError(f"{msg}{shown}; copy them again, or allow filling by interpolation")
    filled = (f"{len(stack.missing)} slices are missing and were interpolated",) * bool(
        stack.missing
    )
    slices = _Slices(stack, chosen.modality, chosen.path)
    streams = all(map(surely_int16, stack.frames))
    dtype = _INT16 if streams else _FLOAT32
    (columns, rows, n_slices), (shape, affine) = stack.shape, stack.grid
    reading = _READER_BYTES + 2 * _SLICE_BYTES * columns * rows
    if stack.tilt_degrees:
        # A block of slices is there sheared and upright besides.
        reading += min(_BLOCK, n_slices) * (columns * rows + shape[0] * shape[1]) * dtype.itemsize
    parts = slices.slabs if streams else None
    return StoredVolume(
        chosen.path,
        shape,
        dtype,
        affine,
        slices.read,
        parts,
        reading_bytes=reading,
        notes=(*chosen.notes, *filled),
    )


def require_whole(inventory: Inventory, chosen: Series) -> None:
    """Refuse where a file beside the series may be one of its slices: damaged, or of no series."""
    folders = {file.parent for file in chosen.files}
    alike = [one for one in inventory.series if one.modality == chosen.modality]
    nameless = [file for one in alike if chosen.uid and not one.uid for file in one.files]
    reasons = [*inventory.damaged, *((file, "has no SeriesInstanceUID") for file in nameless)]
    for file, reason in reasons:
        if file.parent in folders:
            msg = f"{file}: {reason}; it may be a slice of the series, copy it again or remove it"
            raise FileFormatError(msg)
