"""DICOM Segmentation objects (SEG) as labels.

Options:
    segments: {"name of a segment": label value}; segments not listed become background. Without
        it every segment is read, by segment number.
    frame_of_reference: FrameOfReferenceUID of the scan, to check that the file belongs to it.
"""

from __future__ import annotations

from leanseg.datasets.case import Source
from leanseg.volumes.volume import Volume


def read(source: Source, scan: Volume | None) -> Volume:
    """The label map at `source.path`, on the scan's grid if there is a scan."""
    from leanseg.volumes.dicom.seg_reader import read_dicom_seg

    labels, _ = read_dicom_seg(
        source.path,
        scan,
        segments=source.options.get("segments"),
        frame_of_reference=source.options.get("frame_of_reference"),
    )
    return labels
