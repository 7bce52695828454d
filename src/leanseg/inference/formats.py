"""How predicted label maps are stored: as NIfTI, or as DICOM objects that belong to the scan.

A format is one function and one line in the registry below. The function looks at the scan
before anything is predicted, so that what cannot be written is refused at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanseg import __version__
from leanseg.errors import FileFormatError
from leanseg.frames.view import Scan
from leanseg.volumes import Volume, write_mask

if TYPE_CHECKING:
    from leanseg.datasets.case import Case

_ALGORITHM = ("leanseg", __version__)
# Blocks of a file; the library for DICOM objects.
_BLOCK_BYTES, _DICOM_BYTES = 4_000_000, 130_000_000

# Writes (path, label map, scan, label names to values).
Writer = Callable[[Path, Volume, Volume, Mapping[str, int]], None]


@dataclass(frozen=True)
class OutputFormat:
    """A way to store label maps.

    Attributes:
        name: By which users choose it.
        suffix: Follows the case's name in file names.
        prepare: Given the case, says how its label map is written.
        bytes_per_voxel: What its writer holds besides the label map, for so many labels.
        library_bytes: What the library for it takes, unless it is there.
    """

    name: str
    suffix: str
    prepare: Callable[[Case], Writer]
    bytes_per_voxel: Callable[[int], float]
    library_bytes: int = 0

    def memory_bytes(self, scan: Scan, labels: Sequence[str]) -> int:
        """What writing the label map of a scan holds besides it."""
        library = 0 if "highdicom" in sys.modules else self.library_bytes
        copies = self.bytes_per_voxel(len(labels)) * math.prod(scan.shape)
        return int(_BLOCK_BYTES + library + copies)


def _nifti(case: Case) -> Writer:
    def write(path: Path, labels: Volume, scan: Volume, names: Mapping[str, int]) -> None:
        write_mask(path, labels.array, like=scan)

    return write


def _dicom_seg(case: Case) -> Writer:
    return _segmentation(case, "binary")


def _dicom_labelmap(case: Case) -> Writer:
    return _segmentation(case, "labelmap")


def _segmentation(case: Case, kind: Any) -> Writer:
    slices = _slices(case)

    def write(path: Path, labels: Volume, scan: Volume, names: Mapping[str, int]) -> None:
        from leanseg.volumes.dicom.seg import write_dicom_seg

        write_dicom_seg(path, labels, names, slices, kind=kind, algorithm=_ALGORITHM)

    return write


def _rtstruct(case: Case) -> Writer:
    slices = _slices(case)

    def write(path: Path, labels: Volume, scan: Volume, names: Mapping[str, int]) -> None:
        from leanseg.volumes.dicom.rtstruct import write_rtstruct

        write_rtstruct(path, labels, names, slices, algorithm=_ALGORITHM)

    return write


def _bits(n_labels: int) -> float:
    """A bit for every voxel and label, in frames and joined, beside the labels in slice order."""
    return 2.5 + n_labels / 4


FORMATS: dict[str, OutputFormat] = {
    form.name: form
    for form in (
        OutputFormat("nifti", ".nii.gz", _nifti, lambda n: 0.0),
        OutputFormat("dicom-seg", ".seg.dcm", _dicom_seg, _bits, _DICOM_BYTES),
        OutputFormat("dicom-labelmap", ".labelmap.dcm", _dicom_labelmap, _bits, _DICOM_BYTES),
        OutputFormat("rtstruct", ".rtstruct.dcm", _rtstruct, lambda n: 3.0, _DICOM_BYTES),
    )
}


def output_format(name: str) -> OutputFormat:
    """The registered format of a name.

    Raises:
        FileFormatError: If there is none.
    """
    if name not in FORMATS:
        raise FileFormatError(f"unknown format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _slices(case: Case) -> Any:
    """The DICOM slices that a case is read from.

    Raises:
        FileFormatError: If it is not read from DICOM.
    """
    from leanseg.volumes.dicom import choose_series, find_series, is_dicom

    source = case.images[0]
    if not is_dicom(source.path):
        msg = f"{source.path}: is not DICOM, so no DICOM object can refer to it; write NIfTI"
        raise FileFormatError(msg)
    options = source.options
    series = choose_series(find_series(source.path), options.get("series"), options.get("modality"))
    return series.stack(options.get("phase"))
