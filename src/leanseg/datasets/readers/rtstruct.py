"""DICOM RT Structure Sets as labels.

Options:
    segments: {"name of a structure": label value}; structures not listed become background.
        Without it every structure is read, numbered from 1 in order of their ROI numbers.
    frame_of_reference: FrameOfReferenceUID of the scan, to check that the file belongs to it.
"""

from __future__ import annotations

from leanseg.datasets.case import Source
from leanseg.errors import DatasetError
from leanseg.volumes.volume import Volume


def read(source: Source, scan: Volume | None) -> Volume:
    """The structures at `source.path`, filled on the scan's grid.

    Raises:
        DatasetError: If there is no scan, without which contours have no voxels.
    """
    from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct

    if scan is None:
        msg = f"{source.path}: contours have no voxels of their own; use them as labels of a scan"
        raise DatasetError(msg)
    labels, _ = read_rtstruct(
        source.path,
        scan,
        source.options.get("segments"),
        frame_of_reference=source.options.get("frame_of_reference"),
    )
    return labels
