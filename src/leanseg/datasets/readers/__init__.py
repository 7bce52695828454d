"""Readers: how a source becomes a volume. One file each, and one line in the registry below."""

from __future__ import annotations

from collections.abc import Callable

from leanseg.datasets.readers import companion, memory, slices, volume
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes.volume import Volume

# A reader gets the source and, for a label, the case's scan, on whose grid files without a
# geometry of their own are placed.
READERS: dict[str, Callable[[VolumeSource, Volume | None], Volume]] = {
    "volume": volume.read,
    "slices": slices.read,
    "companion": companion.read,
    "memory": memory.read,
}


def read_source(source: VolumeSource, scan: Volume | None = None) -> Volume:
    """Read a source with its reader.

    Args:
        source: Where it lies, and the reader's options.
        scan: For a label, the case's scan; None for the scan itself.

    Raises:
        DatasetError: If there is no such reader.
        LeansegError: Whatever the reader finds wrong.
    """
    if source.reader not in READERS:
        msg = f"{source.path}: unknown reader {source.reader!r}; known: {', '.join(READERS)}"
        raise DatasetError(msg)
    return READERS[source.reader](source, scan)
