"""Volume files and DICOM series; as labels also DICOM SEG and RTSTRUCT files.

Options:
    series, modality, phase, fill_missing: For a DICOM series, as in
        `leanseg.volumes.read_volume`.
    geometry: For NIfTI, likewise.
    segments: For DICOM SEG and RTSTRUCT, {"name of a segment or structure": label value}; those
        not listed become background. Without it all are read, by segment number, or numbered
        from 1 in order of their ROI numbers.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from leanseg.datasets.sources import VolumeSource
from leanseg.volumes import is_volume_path, read_volume
from leanseg.volumes.archive import unpacked
from leanseg.volumes.volume import Volume


def read(source: VolumeSource, scan: Volume | None) -> Volume:
    """The volume at `source.path`.

    Args:
        source: Where it lies.
        scan: For a label, the scan: contours are filled on its grid, segments placed on it.
    """
    options = dict(source.options)
    segments = options.pop("segments", None)
    modality = "" if scan is None or is_volume_path(source.path) else _modality(source.path)
    if modality == "SEG":
        from leanseg.volumes.dicom.seg_reader import read_dicom_seg

        return read_dicom_seg(source.path, scan, segments=segments)[0]
    if modality == "RTSTRUCT" and scan is not None:
        from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct

        return read_rtstruct(source.path, scan, segments)[0]
    return read_volume(source.path, **options)


def _modality(path: Path) -> str:
    """What a DICOM file, or the only file in a folder, is; empty for anything else."""
    place = unpacked(path)
    if place.is_dir():
        inside = [file for file in place.iterdir() if not file.name.startswith(".")]
        place = inside[0] if len(inside) == 1 else place
    try:
        from pydicom import dcmread

        with warnings.catch_warnings():
            # pydicom's warnings quote values, which may name the patient.
            warnings.simplefilter("ignore")
            header: Any = dcmread(place, stop_before_pixels=True, specific_tags=["Modality"])
        return str(header.get("Modality", ""))
    except Exception:
        # Not DICOM, damaged, or no pydicom here: whoever reads the file says what is wrong.
        return ""
