"""What SEG and RTSTRUCT writing share: labels as slices of a series, names, patient and study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import LeansegError
from leanseg.volumes.axes import LPS_TO_RAS, axis_view
from leanseg.volumes.dicom.files import ELEMENTS, PATIENT_AND_STUDY, MisplacedError
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.geometry import Stack, affine_of, axes_of, heights, normal_of
from leanseg.volumes.dicom.values import text
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

# A slice of labels within this share of a voxel of a slice of the scan is that slice.
SAME_PLACE_VOXELS = 0.1
# The value of each name; of several values the first is its own, the others are those of names that
# lie inside it.
Names = Mapping[str, int | Sequence[int]]
_COMMON_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Easily told apart, on grey too (Tableau's ten).
_COLOURS = (
    *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
    *((140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207), (255, 187, 120)),
)


@dataclass(frozen=True, eq=False)
class Slices:
    """Labels as slices, in the order of the scan's as far as their grid allows.

    Attributes:
        array: (slice, row, column).
        affine: (4, 4) from (column, row, slice) to LPS mm.
        frames: For each slice the scan's in the same plane, or None.
        is_scan_grid: Whether every pixel is one of the scan.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    frames: tuple[Frame | None, ...]
    is_scan_grid: bool

    def origin(self, k: int) -> NDArray[np.float64]:
        """Centre of the first pixel of slice `k`, LPS mm, as the scan's header says it."""
        frame = self.frames[k]
        if self.is_scan_grid and frame is not None:
            return np.array(frame.position)
        return np.asarray(self.affine[:3, 3] + k * self.affine[:3, 2], dtype=np.float64)


def prepared(
    path: Path, labels: Volume, names: Names, scan: Stack
) -> tuple[dict[str, tuple[int, ...]], Slices, list[Dataset]]:
    """What both writers begin with, checked: names by value, labels by slice, the scan's headers.

    Each name has its own value first, then those of labels inside it.

    Raises:
        LeansegError: As `check_labels`.
        MisplacedError: As `headers_of`.
    """
    values = {name: tuple(np.atleast_1d(given).tolist()) for name, given in names.items()}
    in_order = check_labels(path, labels, {name: own for name, (own, *_) in values.items()})
    by_value = {name: values[name] for name in in_order}
    return by_value, in_slices(labels, scan), headers_of(scan)


def colour_of(number: int) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) to show the label with that number, from 1, with."""
    return _COLOURS[(number - 1) % len(_COLOURS)]


def label_text(name: str) -> str:
    """A label's name as a DICOM text of at most 64 characters."""
    return "".join(c for c in name.replace("\\", "/") if c.isprintable()).strip()[:64]


def check_labels(path: Path, labels: Volume, names: Mapping[str, int]) -> dict[str, int]:
    """Check that each value of a label map has a name.

    Returns:
        The names in ascending order of their values.

    Raises:
        LeansegError: If not, if two names share a value, or the labels are no whole numbers.
    """
    array, values = labels.array, list(names.values())
    if array.ndim != 3 or array.dtype.kind not in "biu":
        msg = f"{path}: labels of type {array.dtype} and shape {array.shape} cannot be written"
        raise LeansegError(f"{msg}; give a 3-D array of integers")
    if len(set(values)) < len(values) or not all(1 <= value <= 65535 for value in values):
        msg = f"{path}: label values must be different whole numbers from 1 to 65535, not {values}"
        raise LeansegError(msg)
    is_named = np.zeros(65537, dtype=bool)
    is_named[[0, *(value for name, value in names.items() if label_text(name))]] = True
    nameless = [value for value in values if not is_named[value]]
    found = ~is_named[np.clip(array, -1, 65536)]
    nameless += np.unique(array[found]).tolist()
    if nameless or not names:
        listed = ", ".join(map(str, nameless[:10]))
        raise LeansegError(f"{path}: label value(s) {listed} have no name; name every label")
    return dict(sorted(names.items(), key=lambda item: item[1]))


def headers_of(scan: Stack) -> list[Dataset]:
    """The headers of a scan's files in slice order, if something can refer to them.

    Raises:
        MisplacedError: If a UID is missing, or the slices do not share those that they must.
    """
    headers = [file.header for file in dict.fromkeys(frame.file for frame in scan.frames)]
    for keyword in ("SOPClassUID", "SOPInstanceUID", *_COMMON_UIDS):
        found = {text(header, keyword) for header in headers}
        if "" in found:
            remedy = "write NIfTI, or export the scan again without removing it"
            raise MisplacedError(f"the scan has no {keyword}, so nothing can refer to it", remedy)
        if keyword in _COMMON_UIDS and len(found) > 1:
            msg = f"the scan's slices differ in {keyword}, so nothing can refer to them together"
            raise MisplacedError(msg, "write NIfTI")
    return headers


def in_slices(labels: Volume, scan: Stack) -> Slices:
    """Labels as slices in the order of the scan: axes exchanged and reversed, no voxel moved.

    Where the grid is turned against the scan's, its axes keep their own directions, each
    nearest to the scan's axis of the same place.
    """
    first = scan.frames[0]
    own = np.eye(4)
    own[:3, :2], own[:3, 2] = axes_of(first), normal_of(first)
    # The scan's axes in place of the world's, so that they are those that letters name.
    to_own = np.asarray(np.linalg.solve(own, LPS_TO_RAS @ labels.affine), dtype=np.float64)
    array, to_own = axis_view(labels.array, to_own, "RAS")
    affine = own @ to_own
    frames = _coplanar(affine, array.shape, scan)
    apart_mm = np.abs(affine - affine_of(first, own[:3, 2]))[:3, :2].max(axis=0)
    tolerance_mm = SAME_PLACE_VOXELS * min(first.spacing)
    origins = affine[:3, 3] + np.outer(range(len(frames)), affine[:3, 2])
    same = (
        array.shape[:2] == first.file.size
        and bool((apart_mm * array.shape[:2] < tolerance_mm).all())
        and all(
            frame is not None and np.linalg.norm(frame.position - origin) < tolerance_mm
            for frame, origin in zip(frames, origins, strict=True)
        )
    )
    return Slices(array.transpose(2, 1, 0), affine, frames, same)


def _coplanar(
    affine: NDArray[np.float64], shape: tuple[int, ...], scan: Stack
) -> tuple[Frame | None, ...]:
    """For each slice (along the third axis) the scan's frame in the same plane."""
    height, normal = heights(scan.frames), normal_of(scan.frames[0])
    tolerance_mm = SAME_PLACE_VOXELS * float(np.diff(height).min())
    corners = np.array([[i, j, 0, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1)])
    found: list[Frame | None] = []
    for k in range(shape[2]):
        corners[:, 2] = k
        ours = (corners @ affine.T)[:, :3] @ normal
        nearest = int(np.argmin(np.abs(height - ours[0])))
        is_same = np.abs(ours - height[nearest]).max() <= tolerance_mm
        found.append(scan.frames[nearest] if is_same else None)
    return tuple(found)


def patient_and_study(header: Dataset) -> Dataset:
    """The study's own patient and study attributes, in UTF-8.

    Values that DICOM does not allow are left empty; sequences are not kept.
    """
    from pydicom import Dataset
    from pydicom.config import RAISE
    from pydicom.datadict import dictionary_VR
    from pydicom.valuerep import validate_value

    kept = Dataset()
    kept.SpecificCharacterSet = "ISO_IR 192"
    always = {one["keyword"] for one in ELEMENTS if one["use"] == "study always"}
    for keyword in PATIENT_AND_STUDY:
        kind = dictionary_VR(keyword)
        value = text(header, keyword)
        try:
            # Scanners and anonymisers write things that no writer accepts. Names always stay.
            validate_value("LT" if kind == "PN" else kind, value, RAISE)
        except ValueError:
            value = ""
        if keyword == "PatientSex" and value not in ("M", "F", "O"):
            value = ""
        if value or keyword in always:
            setattr(kept, keyword, value)
    return kept
