"""DICOM series: found, described and read as volumes."""

from __future__ import annotations

from pathlib import Path

from leanseg.errors import FileFormatError
from leanseg.volumes.volume import Volume


def is_dicom(path: Path) -> bool:
    """Whether a folder or file holds DICOM."""
    return False


def read_series(path: Path, series: str | None = None) -> Volume:
    """The volume of a series."""
    msg = f"{path}: is a folder, expected one file; name a file in it"
    raise FileFormatError(msg)
