"""Volumes that were given as arrays."""

from __future__ import annotations

from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes.volume import Volume


def read(source: VolumeSource, scan: Volume | None) -> Volume:
    """The volume in memory.

    Raises:
        DatasetError: If the source comes from a record, which does not hold the voxels.
    """
    if source.volume is None:
        msg = f"{source.path}: was given as an array, which is not stored; give it again"
        raise DatasetError(msg)
    return source.volume
