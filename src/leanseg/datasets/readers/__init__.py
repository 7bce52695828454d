"""Readers: how a source becomes a volume. One file each, and one line in the registry below."""

from __future__ import annotations

from collections.abc import Callable

from leanseg.datasets.readers import companion, slices, volume
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes.volume import Volume


def _in_memory(source: VolumeSource, scan: Volume | None) -> Volume:
    if source.volume is None:
        msg = f"{source.path}: was given as an array, which is not stored; give it again"
        raise DatasetError(msg)
    return source.volume


# A reader gets the source and, for a label, the case's scan, on whose grid files without a
# geometry of their own are placed.
READERS: dict[str, Callable[[VolumeSource, Volume | None], Volume]] = {
    "volume": volume.read,
    "slices": slices.read,
    "companion": companion.read,
    "memory": _in_memory,
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
