"""A scan cut to an anatomical box, and label files whose headers do not say where they lie.

Published label maps were often saved without the scan's geometry: the voxels are the scan's, the
header's origin or directions are not. This reader puts such a label map on its scan.

Where the label's header agrees with the scan, it is believed. Otherwise, for a DICOM scan, voxel
(i, j, k) is column i and row j of the k-th slice, counted as the option `slices` says; for a scan
in one file, the directions of both headers are believed and their origins are not.

Options:
    slices: "instances" counts the scan's slices by their instance number; "positions" (the
        default) counts them along row x column, as ITK and leanseg order a series.
    extent: `{"LR": [a, b], "AP": [a, b], "IS": [a, b]}` cuts to a box of voxels, counted from
        the patient's right, front and feet end of the whole scan; a is included and b is not.
    geometry: As in `leanseg.volumes.read_volume`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.readers.slices import require_alike, series_of
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError, GeometryError
from leanseg.volumes import Box, crop, is_volume_path, on_grid_of, read_volume, reorient
from leanseg.volumes.volume import Volume

# The axis of an extent by each of the letters that an orientation may have for it, and the
# letter of the direction in which it counts.
_EXTENTS = {"L": "LR", "R": "LR", "A": "AP", "P": "AP", "I": "IS", "S": "IS"}
_COUNTS_TOWARDS = {"LR": "L", "AP": "P", "IS": "S"}


def read(source: VolumeSource, scan: Volume | None) -> Volume:
    """The volume at `source.path`; a label map on the grid of its scan.

    Raises:
        DatasetError: If the box leaves the volume.
        GeometryError: If the label's shape is not the scan's.
    """
    volume = read_volume(source.path, geometry=source.options.get("geometry", "auto"))
    extent: Mapping[str, Sequence[int]] = source.options.get("extent", {})
    own = _cut(volume, extent)
    if scan is None or scan.path is None:
        return own
    try:
        agreeing = on_grid_of(scan, own)
    except GeometryError:
        pass
    else:
        return Volume(agreeing.array, scan.affine, source.path, scan.header)
    if is_volume_path(scan.path):
        placed = reorient(volume, scan.orientation)
    else:
        array = _in_slice_order(source, volume.array, scan.path)
        placed = Volume(array, scan.affine, volume.path)
    placed = _cut(placed, extent)
    require_alike(source.path, f"shape {placed.shape}", scan.path, f"shape {scan.shape}")
    return Volume(placed.array, scan.affine, source.path, scan.header)


def _cut(volume: Volume, extent: Mapping[str, Sequence[int]]) -> Volume:
    """The part of a volume within an extent; a slice of the array, exact in the world."""
    if not extent:
        return volume
    start, stop = [], []
    for letter, size in zip(volume.orientation, volume.shape, strict=True):
        low, high = extent.get(_EXTENTS[letter], (0, size))
        if not 0 <= low < high <= size:
            raise DatasetError(
                f"{volume.path}: the box {low} to {high} along {_EXTENTS[letter]} leaves the "
                f"{size} voxels there; check the list of boxes, or that it belongs to this scan"
            )
        towards = letter == _COUNTS_TOWARDS[_EXTENTS[letter]]
        start.append(low if towards else size - high)
        stop.append(high if towards else size - low)
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return replace(crop(volume, box), path=volume.path)


def _in_slice_order(
    source: VolumeSource, array: NDArray[np.generic], scan: Path
) -> NDArray[np.generic]:
    if source.options.get("slices") != "instances":
        return array
    order = _instance_ranks(source, scan)
    found, expected = (f"{n} slices" for n in (array.shape[2], len(order)))
    require_alike(source.path, found, scan, expected)
    return array[:, :, order]


def _instance_ranks(source: VolumeSource, scan: Path) -> NDArray[np.intp]:
    """For each slice along row x column: its place when counted by instance number."""
    frames = series_of(source.path, scan).stack().frames
    numbers = [int(frame.file.header.get("InstanceNumber") or 0) for frame in frames]
    if len(set(numbers)) != len(numbers):
        # Without numbers there is nothing to count by but the slices' places.
        return np.arange(len(numbers))
    ranks = np.empty(len(numbers), dtype=np.intp)
    ranks[np.argsort(numbers)] = np.arange(len(numbers))
    return ranks
