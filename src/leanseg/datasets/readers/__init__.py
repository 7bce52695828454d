"""Readers: how a source becomes a volume. One file each, and one line in the registry below."""

from __future__ import annotations

from typing import Protocol

from leanseg.datasets.case import Source
from leanseg.datasets.readers import companion, dicom_seg, rtstruct, slices, volume
from leanseg.errors import DatasetError
from leanseg.volumes.volume import Volume


class Reader(Protocol):
    """What the registry expects of a reader (a module, or any object)."""

    def read(self, source: Source, scan: Volume | None) -> Volume:
        """The volume at `source`.

        Args:
            source: Where it lies, and the reader's options.
            scan: For a label: the case's scan, on whose grid files without a geometry of their
                own are placed. None for the scan itself.
        """


READERS: dict[str, Reader] = {
    "volume": volume,
    "slices": slices,
    "companion": companion,
    "dicom-seg": dicom_seg,
    "rtstruct": rtstruct,
}


def read_source(source: Source, scan: Volume | None = None) -> Volume:
    """Read a source with its reader.

    Raises:
        DatasetError: If there is no such reader.
        LeansegError: Whatever the reader finds wrong.
    """
    if source.reader not in READERS:
        msg = f"{source.path}: unknown reader {source.reader!r}; known: {', '.join(READERS)}"
        raise DatasetError(msg)
    return READERS[source.reader].read(source, scan)
