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
from pkgutil import resolve_name
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

# Label names to values; regions that others lie inside have these regions' values after their own.
_Names = Mapping[str, Sequence[int]]
# Writes (path, label map, names).
Writer = Callable[[Path, Volume, _Names], None]


@dataclass(frozen=True)
class OutputFormat:
    """A way to store label maps.

    Attributes:
        suffix: Follows the case's name in file names.
        prepare: Given the case, says how its label map is written.
        bytes_per_voxel: What its writer holds besides the label map, for such labels.
        library_bytes: What the library for it takes, unless it is there.
    """

    suffix: str
    prepare: Callable[[Case], Writer]
    bytes_per_voxel: Callable[[_Names], float]
    library_bytes: int = 0

    def memory_bytes(self, scan: Scan, labels: _Names) -> int:
        """What writing the label map of a scan holds besides it."""
        library = 0 if "highdicom" in sys.modules else self.library_bytes
        copies = self.bytes_per_voxel(labels) * math.prod(scan.shape)
        return int(_BLOCK_BYTES + library + copies)


def _nifti(case: Case) -> Writer:
    # The label map has the scan's grid and header.
    return lambda path, labels, names: write_mask(path, labels.array, like=labels)


def _dicom(writer: str, **options: Any) -> Callable[[Case], Writer]:
    """A format whose objects refer to the slices that a case is read from."""

    def prepare(case: Case) -> Writer:
        slices = _slices(case)

        def write(path: Path, labels: Volume, names: _Names) -> None:
            function = resolve_name(f"leanseg.volumes.dicom.{writer}")
            function(path, labels, names, slices, algorithm=_ALGORITHM, **options)

        return write

    return prepare


_SEG = "seg:write_dicom_seg"
_binary, _labelmap = _dicom(_SEG, kind="binary"), _dicom(_SEG, kind="labelmap")
_rtstruct = _dicom("rtstruct:write_rtstruct")


def _bits(names: _Names) -> float:
    """A bit for every voxel and label, in frames and joined, beside the labels in slice order."""
    return 2.5 + len(names) / 4


def _masks(names: _Names) -> float:
    """Where labels overlap, a mask of each besides, which the library copies."""
    return _bits(names) + 2 * len(names) * any(len(values) > 1 for values in names.values())


FORMATS = {
    "nifti": OutputFormat(".nii.gz", _nifti, lambda names: 0.0),
    "dicom-seg": OutputFormat(".seg.dcm", _binary, _masks, _DICOM_BYTES),
    "dicom-labelmap": OutputFormat(".labelmap.dcm", _labelmap, _bits, _DICOM_BYTES),
    "rtstruct": OutputFormat(".rtstruct.dcm", _rtstruct, lambda names: 3.0, _DICOM_BYTES),
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
