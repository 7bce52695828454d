"""Volume files and DICOM series; as labels also DICOM SEG and RTSTRUCT files.

Options:
    series, modality, phase, fill_missing: For a DICOM series, as in
        `leanseg.volumes.read_volume`.
    geometry: For NIfTI, likewise.
    segments: For DICOM SEG and RTSTRUCT, {"name of a segment or structure": label value}; those
        not listed become background. A label value takes all as that one. Without it all are
        read, by segment number, or numbered from 1 in order of their ROI numbers.
"""

from __future__ import annotations

from pathlib import Path

from leanseg.datasets.sources import VolumeSource
from leanseg.errors import LeansegError
from leanseg.volumes import is_volume_path, read_volume
from leanseg.volumes.dicom import find_series, is_dicom
from leanseg.volumes.volume import Volume


def read(source: VolumeSource, scan: Volume | None) -> Volume:
    """The volume at `source.path`.

    Args:
        source: Where it lies.
        scan: For a label, the scan: contours are filled on its grid, segments placed on it.
    """
    options = dict(source.options)
    segments = options.pop("segments", None)
    kind = "" if scan is None or is_volume_path(source.path) else _kind(source.path)
    if kind == "segmentation":
        from leanseg.volumes.dicom.seg_reader import read_dicom_seg

        return read_dicom_seg(source.path, scan, segments=segments)[0]
    if kind == "contours" and scan is not None:
        from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct

        return read_rtstruct(source.path, scan, segments)[0]
    return read_volume(source.path, **options)


def _kind(path: Path) -> str:
    """What the DICOM files in a place are, as `Series.kind`; empty for several or anything else."""
    try:
        kinds = {series.kind for series in find_series(path).series} if is_dicom(path) else set()
    except LeansegError:
        # Damaged, or no pydicom here: whoever reads the file says what is wrong.
        return ""
    return kinds.pop() if len(kinds) == 1 else ""
