"""The series that a segmentation refers to: its slices' places, and what is kept of its headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError, LeansegError
from leanseg.volumes.dicom.values import decoded, integer, items, numbers, text
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

# A slice of labels within this share of a voxel of a slice of the scan is that slice.
SAME_PLACE_VOXELS = 0.1
_SHARED_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "LongitudinalTemporalInformationModified"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyDescription", "ClinicalTrialSponsorName"),
    *("ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    *("ClinicalTrialTimePointID",),
)
# Elements that every study has, though they may be empty.
_ALWAYS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"),
    *("StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
# What a value of its kind must look like; scanners and anonymisers write other things, which
# no writer accepts, and then the element stays empty.
_VALID = {
    "DA": r"\d{8}",
    "TM": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "AS": r"\d{3}[DWMY]",
    "SH": r"[^\\]{0,16}",
    "LO": r"[^\\]{0,64}",
    "DS": r"[-+0-9.eE]{1,16}",
    "UI": r"[0-9.]{1,64}",
}
# Easily told apart, on grey too (Tableau's ten).
_COLOURS = (
    *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
    *((140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207), (255, 187, 120)),
)


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice of the series.

    Attributes:
        sop_class: UID of the class of the file that holds it.
        sop_instance: UID of that file.
        frame: Its number in a multi-frame file, from 1; None in a file of one slice.
        origin: Centre of the first pixel, LPS mm.
    """

    sop_class: str
    sop_instance: str
    frame: int | None
    origin: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The series that a segmentation was made from.

    Attributes:
        headers: The files' headers as given.
        planes: All slices, along the normal.
        axes: (3, 2) unit vectors, LPS: where the column index grows, where the row index grows.
        spacing_mm: Between columns, between rows.
        size: Columns, rows.
        step_mm: Between neighbouring slices; the smallest where they differ.
        normal: Unit vector along which slices are ordered, LPS.
        heights: Where each of the planes lies along it, mm.
    """

    headers: tuple[Dataset, ...]
    planes: tuple[Plane, ...]
    axes: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    step_mm: float
    normal: NDArray[np.float64]
    heights: NDArray[np.float64]

    def uid(self, keyword: str) -> str:
        """A UID that all files share."""
        return text(self.headers[0], keyword)


@dataclass(frozen=True, eq=False)
class Slices:
    """Labels as slices, in the order of the series as far as their grid allows.

    Attributes:
        array: (slice, row, column).
        affine: (4, 4) from (column, row, slice) to LPS mm.
        planes: For each slice the one of the series in the same plane, or None.
        is_source_grid: Whether every pixel is one of the series.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    planes: tuple[Plane | None, ...]
    is_source_grid: bool


def colour_of(index: int) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) to show the label with."""
    return _COLOURS[index % len(_COLOURS)]


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
    array = labels.array
    if array.ndim != 3 or array.dtype.kind not in "biu":
        msg = f"{path}: labels of type {array.dtype} and shape {array.shape} cannot be written"
        raise LeansegError(f"{msg}; give a 3-D array of integers")
    values = list(names.values())
    if not names or any(not label_text(name) for name in names):
        raise LeansegError(f"{path}: there are labels without a name; name every label")
    if len(set(values)) < len(values) or min(values) < 1 or max(values) > 65535:
        msg = f"{path}: label values must be different whole numbers from 1 to 65535, not {values}"
        raise LeansegError(msg)
    is_named = np.zeros(65537, dtype=bool)
    is_named[[0, *values]] = True
    nameless = ~is_named[np.clip(array, -1, 65536)]
    if nameless.any():
        found = ", ".join(str(value) for value in np.unique(array[nameless])[:10])
        raise LeansegError(f"{path}: label value(s) {found} have no name; name every label")
    return dict(sorted(names.items(), key=lambda item: item[1]))


def source_series(path: Path, sources: Sequence[Dataset]) -> SourceSeries:
    """The series made up of headers in any order.

    Args:
        path: The file to be written, for messages.
        sources: Headers of all slices of one series, or of its one multi-frame file.

    Raises:
        GeometryError: If they are of several series, or have no common geometry.
    """
    if not sources:
        raise GeometryError(f"{path}: there are no slices to refer to; give the scan's series")
    for keyword in ("SOPClassUID", "SOPInstanceUID", *_SHARED_UIDS):
        found = {text(source, keyword) for source in sources}
        if "" in found:
            msg = f"{path}: the scan has no {keyword}, so nothing can refer to it; write NIfTI, or "
            raise GeometryError(f"{msg}export the scan again without removing it")
        if keyword not in _SHARED_UIDS:
            continue
        if len(found) > 1:
            msg = f"{path}: the slices to refer to are of {len(found)} different series "
            raise GeometryError(f"{msg}(by {keyword}); give those of one")
    sizes = {(integer(s, "Columns") or 0, integer(s, "Rows") or 0) for s in sources}
    placed = [place for source in sources for place in _places(source)]
    if len(sizes) > 1 or any(place is None for place in placed):
        msg = f"{path}: the slices to refer to differ in size or lack a place in the patient"
        raise GeometryError(f"{msg}; give the slices of one series, without localizers")
    places = [place for place in placed if place is not None]
    orientation, spacing = places[0][1], places[0][2]
    turned = max(float(np.abs(place[1] - orientation).max()) for place in places)
    stretched = max(float(np.abs(place[2] - spacing).max()) for place in places)
    if turned > 1e-3 or stretched > 1e-3 * float(spacing.min()):
        msg = f"{path}: the slices to refer to differ in direction or pixel spacing"
        raise GeometryError(f"{msg}; give the slices of one series, without localizers")
    axes = orientation.reshape(2, 3).T
    axes = axes / np.linalg.norm(axes, axis=0)
    normal = np.cross(axes[:, 0], axes[:, 1])
    planes = sorted((place[0] for place in places), key=lambda plane: float(plane.origin @ normal))
    heights = np.array([plane.origin @ normal for plane in planes])
    steps = np.diff(heights)
    steps = steps[steps > 1e-2]
    return SourceSeries(
        tuple(sources),
        tuple(planes),
        axes,
        (float(spacing[1]), float(spacing[0])),
        sizes.pop(),
        float(steps.min()) if len(steps) else 1.0,
        normal,
        heights,
    )


def _places(
    header: Dataset,
) -> list[tuple[Plane, NDArray[np.float64], NDArray[np.float64]] | None]:
    """Plane, ImageOrientationPatient and PixelSpacing of each slice in a file."""
    frames = items(header, "PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_place(header, None, header, header, header)]
    shared = items(header, "SharedFunctionalGroupsSequence")
    found = []
    for number, frame in enumerate(frames, 1):
        groups = [
            next((part for group in (frame, *shared) for part in items(group, name)), header)
            for name in (
                "PlanePositionSequence",
                "PlaneOrientationSequence",
                "PixelMeasuresSequence",
            )
        ]
        found.append(_place(header, number, *groups))
    return found


def _place(
    header: Dataset, frame: int | None, position: Any, orientation: Any, measures: Any
) -> tuple[Plane, NDArray[np.float64], NDArray[np.float64]] | None:
    origin = numbers(position, "ImagePositionPatient")
    axes = numbers(orientation, "ImageOrientationPatient")
    spacing = numbers(measures, "PixelSpacing")
    if (len(origin), len(axes), len(spacing)) != (3, 6, 2):
        return None
    if not np.isfinite([*origin, *axes, *spacing]).all() or min(spacing) <= 0:
        return None
    instance = text(header, "SOPInstanceUID")
    plane = Plane(text(header, "SOPClassUID"), instance, frame, np.array(origin))
    return plane, np.array(axes), np.array(spacing)


def in_slices(labels: Volume, series: SourceSeries) -> Slices:
    """Labels as slices in the order of the series: axes exchanged and reversed, no voxel moved.

    Where the grid is turned against the series', its axes keep their own directions, each
    nearest to the series' axis of the same place.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    to_lps = _LPS_TO_RAS @ labels.affine
    own = np.eye(4)
    own[:3, :2], own[:3, 2] = series.axes, series.normal
    turned = io_orientation(np.linalg.inv(own) @ to_lps)
    array = apply_orientation(labels.array, turned)
    affine = to_lps @ inv_ornt_aff(turned, labels.shape)
    planes = tuple(_coplanar(affine, array.shape, k, series) for k in range(array.shape[2]))
    in_plane = series.axes * series.spacing_mm
    apart = np.abs(affine[:3, :2] - in_plane).max(axis=0) * array.shape[:2]
    tolerance_mm = SAME_PLACE_VOXELS * min(series.spacing_mm)
    same = array.shape[:2] == series.size and bool((apart < tolerance_mm).all())
    for k, plane in enumerate(planes):
        origin = affine[:3, 3] + k * affine[:3, 2]
        same = same and plane is not None
        same = same and bool(np.linalg.norm(plane.origin - origin) < tolerance_mm)  # type: ignore[union-attr]
    return Slices(array.transpose(2, 1, 0), affine, planes, same)


def _coplanar(
    affine: NDArray[np.float64], shape: tuple[int, ...], k: int, series: SourceSeries
) -> Plane | None:
    corners = [[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1)]
    heights = (np.array(corners) @ affine.T)[:, :3] @ series.normal
    nearest = int(np.argmin(np.abs(series.heights - heights[0])))
    apart = np.abs(heights - series.heights[nearest]).max()
    return series.planes[nearest] if apart <= SAME_PLACE_VOXELS * series.step_mm else None


def patient_and_study(series: SourceSeries) -> Dataset:
    """The study's own patient and study attributes, in UTF-8.

    Values that DICOM does not allow are left empty; sequences are not kept.
    """
    from pydicom import Dataset
    from pydicom.datadict import dictionary_VR

    header, kept = series.headers[0], Dataset()
    kept.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _PATIENT_AND_STUDY:
        kind = dictionary_VR(keyword)
        value = decoded(header, keyword) if kind in ("PN", "LO", "SH") else text(header, keyword)
        if kind in _VALID and re.fullmatch(_VALID[kind], value) is None:
            value = ""
        if keyword == "PatientSex" and value not in ("M", "F", "O"):
            value = ""
        if value or keyword in _ALWAYS:
            setattr(kept, keyword, value)
    return kept
