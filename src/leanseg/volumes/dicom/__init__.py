"""DICOM series in: found, described and read as volumes. Needs the extra `leanseg[dicom]`."""

from leanseg.volumes.dicom.files import is_dicom
from leanseg.volumes.dicom.find import find_series
from leanseg.volumes.dicom.read import choose_series, read_series
from leanseg.volumes.dicom.series import Inventory, Series
from leanseg.volumes.dicom.stored import open_series

__all__ = [
    "Inventory",
    "Series",
    "choose_series",
    "find_series",
    "is_dicom",
    "open_series",
    "read_series",
]
