"""DICOM: series, segmentations and structure sets, in and out. Needs `leanseg[dicom]`."""

from leanseg.volumes.dicom.files import folder_of_index, is_dicom
from leanseg.volumes.dicom.inventory import Inventory, choose_series, find_series
from leanseg.volumes.dicom.read import open_series
from leanseg.volumes.dicom.series import Series

__all__ = [
    "Inventory",
    "Series",
    "choose_series",
    "find_series",
    "folder_of_index",
    "is_dicom",
    "open_series",
]
