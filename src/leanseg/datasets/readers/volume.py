"""Volume files and DICOM series, with the corrections that some published datasets need.

Options:
    series, modality, phase, fill_missing: For DICOM, as in `leanseg.volumes.read_volume`.
    mirror: Axes (0, 1, 2) whose voxels are stored in the opposite order of what the header says.
    grid: "scan" places the voxels on the case's scan, whatever their own header says.
    crop: [[start, stop], [start, stop], [start, stop]] in voxels, applied last.
"""

from __future__ import annotations

import numpy as np

from leanseg.datasets.case import Source
from leanseg.errors import DatasetError, GeometryError
from leanseg.volumes.volume import Volume

_DICOM_OPTIONS = ("series", "modality", "phase", "fill_missing")


def read(source: Source, scan: Volume | None) -> Volume:
    """The volume at `source.path`, corrected as its options say."""
    from leanseg.volumes import Box, crop, read_volume

    options = source.options
    dicom = {name: options[name] for name in _DICOM_OPTIONS if name in options}
    volume = read_volume(source.path, **dicom)
    if "mirror" in options:
        volume = volume.with_array(np.flip(volume.array, tuple(options["mirror"])))
    if options.get("grid") == "scan":
        volume = _on(scan, volume)
    if "crop" in options:
        starts, stops = zip(*options["crop"], strict=True)
        if any(stop > size for stop, size in zip(stops, volume.shape, strict=True)):
            msg = f"{source.path}: the box {options['crop']} leaves the volume of {volume.shape}"
            raise DatasetError(f"{msg}; correct the list of boxes")
        volume = crop(volume, Box(starts, stops))
    return volume


def _on(scan: Volume | None, volume: Volume) -> Volume:
    if scan is None:
        return volume
    if scan.shape != volume.shape:
        msg = (
            f"{volume.path} has shape {volume.shape}, but its scan {scan.path} has "
            f"{scan.shape}; check that they belong together"
        )
        raise GeometryError(msg)
    return Volume(volume.array, scan.affine, volume.path, scan.header)
