"""DICOM RT Structure Sets (RTSTRUCT): label maps out as closed contours.

Reading is in `rtstruct_reader`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.files import written_whole
from leanseg.volumes.dicom.codes import Meaning, meaning_of
from leanseg.volumes.dicom.contours import trace
from leanseg.volumes.dicom.files import require_package
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.geometry import Stack
from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct
from leanseg.volumes.dicom.values import text
from leanseg.volumes.dicom.writing import (
    Slices,
    axes_of,
    check_labels,
    colour_of,
    headers_of,
    in_slices,
    label_text,
    patient_and_study,
)
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["read_rtstruct", "write_rtstruct"]

# The value lengths of explicit encodings have 16 bits, too few for long contours.
_IMPLICIT = "1.2.840.10008.1.2"
_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_CONTOUR_DATA = 0x30060050
_MAX_DECIMALS = 8
_SERIES_NUMBER = 301

_Contour = tuple[NDArray[np.float64], Frame | None]


def write_rtstruct(
    path: str | Path,
    labels: Volume,
    names: Mapping[str, int],
    scan: Stack,
    *,
    algorithm: tuple[str, str],
) -> None:
    """Write a label map as a DICOM RT Structure Set; it appears whole or not at all.

    Each part of a label in a slice becomes one CLOSED_PLANAR contour along the borders of its
    voxels, holes joined to it by keyholes, so that a reader which tests voxel centres finds the
    same voxels (see `leanseg.volumes.dicom.contours`). Contours refer to the slice of the scan
    that they lie in; on a grid with slices of its own, such as that of a series resampled from a
    tilted gantry, they stand in patient coordinates alone. A label without any voxel becomes a
    structure without contours.

    Args:
        path: The file to write.
        labels: (i, j, k) integers, on any grid.
        names: Name of each value in the labels, the structures' names, numbered in ascending
            order of the values.
        scan: The slices that the labels belong to (`Series.stack`).
        algorithm: Its name and version.

    Raises:
        LeansegError: If a value has no name, or the file cannot be written.
        GeometryError: If nothing can refer to the scan.
        MissingDependencyError: If pydicom is not installed.
    """
    path = Path(path)
    require_package()
    named = check_labels(path, labels, names)
    slices = in_slices(labels, scan)
    with warnings.catch_warnings():
        # pydicom quotes odd values of the headers in its warnings, and they may name the patient.
        warnings.simplefilter("ignore")
        headers = headers_of(path, scan)
        structures = _header(headers[0], algorithm)
        structures.ReferencedFrameOfReferenceSequence = [_referenced(headers)]
        contours = _contours(slices, scan, set(named.values()))
        # A ten-thousandth of a voxel: far less than contours keep from voxel centres.
        fineness_mm = 1e-4 * min(scan.frames[0].spacing)
        decimals = int(np.clip(np.ceil(-np.log10(fineness_mm)), 3, _MAX_DECIMALS))
        _add_structures(structures, named, contours, algorithm, decimals)
        with written_whole(path) as temporary:
            structures.save_as(temporary, enforce_file_format=True)


def _header(scan: Dataset, algorithm: tuple[str, str]) -> Dataset:
    from datetime import datetime

    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, generate_uid

    import leanseg

    now = datetime.now()
    header = patient_and_study(scan)
    header.SOPClassUID, header.SOPInstanceUID = _STRUCTURE_SET, generate_uid()
    header.InstanceCreationDate = header.StructureSetDate = f"{now:%Y%m%d}"
    header.InstanceCreationTime = header.StructureSetTime = f"{now:%H%M%S}"
    header.Modality, header.SeriesDescription = "RTSTRUCT", "Segmentation"
    header.SeriesInstanceUID, header.SeriesNumber = generate_uid(), _SERIES_NUMBER
    header.InstanceNumber, header.ApprovalStatus = 1, "UNAPPROVED"
    header.Manufacturer = header.ManufacturerModelName = "leanseg"
    header.SoftwareVersions = leanseg.__version__
    header.FrameOfReferenceUID = text(scan, "FrameOfReferenceUID")
    header.PositionReferenceIndicator = header.OperatorsName = ""
    header.StructureSetLabel = "SEGMENTATION"
    header.StructureSetDescription = label_text(f"{algorithm[0]} {algorithm[1]}")
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(_IMPLICIT)
    return header


def _item(**elements: Any) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _instance(header: Dataset) -> Dataset:
    return _item(
        ReferencedSOPClassUID=text(header, "SOPClassUID"),
        ReferencedSOPInstanceUID=text(header, "SOPInstanceUID"),
    )


def _referenced(headers: Sequence[Dataset]) -> Dataset:
    """The frame of reference with the study and series that define it."""
    first = headers[0]
    series = _item(
        SeriesInstanceUID=text(first, "SeriesInstanceUID"),
        ContourImageSequence=[_instance(header) for header in headers],
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=text(first, "StudyInstanceUID"),
        RTReferencedSeriesSequence=[series],
    )
    frame_of_reference = text(first, "FrameOfReferenceUID")
    return _item(FrameOfReferenceUID=frame_of_reference, RTReferencedStudySequence=[study])


def _contours(slices: Slices, scan: Stack, values: set[int]) -> dict[int, list[_Contour]]:
    """The contours of each label value, (points, 3) in LPS mm, slice by slice."""
    found: dict[int, list[_Contour]] = {value: [] for value in values}
    steps = slices.affine[:3, :2]
    if slices.is_scan_grid:
        # Row spacing, the distance between rows, stands first in DICOM.
        steps = axes_of(scan.frames[0]) * scan.frames[0].spacing[::-1]
    for k, frame in enumerate(slices.frames):
        for value, i, j, mask in _masks(slices.array[k]):
            corner = np.array([i, j])
            for points in trace(mask):
                found[value].append((slices.origin(k) + (points + corner) @ steps.T, frame))
    return found


def _masks(labelled: NDArray[Any]) -> Iterator[tuple[int, int, int, NDArray[np.bool_]]]:
    """Each label of a slice (row, column): its value, first column, first row, mask (i, j)."""
    from scipy.ndimage import find_objects

    for value, box in enumerate(find_objects(labelled.astype(np.int32, copy=False)), 1):
        if box is not None:
            rows, columns = box
            yield value, columns.start, rows.start, (labelled[box] == value).T


def _add_structures(
    structures: Dataset,
    named: Mapping[str, int],
    contours: Mapping[int, list[_Contour]],
    algorithm: tuple[str, str],
    decimals: int,
) -> None:
    regions, outlines, observations = [], [], []
    for number, (name, value) in enumerate(named.items(), 1):
        region = _item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=structures.FrameOfReferenceUID,
            ROIName=label_text(name),
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription=label_text(f"{algorithm[0]} {algorithm[1]}"),
        )
        outline = _item(ROIDisplayColor=list(colour_of(number - 1)), ReferencedROINumber=number)
        if contours[value]:
            outline.ContourSequence = [_contour(*contour, decimals) for contour in contours[value]]
        meaning = meaning_of(name)
        observation = _item(
            ObservationNumber=number,
            ReferencedROINumber=number,
            RTROIInterpretedType=_interpreted(meaning),
            ROIInterpreter="",
        )
        if meaning.known:
            code = _item(
                CodeValue=meaning.type.value,
                CodingSchemeDesignator=meaning.type.scheme_designator,
                CodeMeaning=meaning.type.meaning,
            )
            observation.RTROIIdentificationCodeSequence = [code]
        regions.append(region)
        outlines.append(outline)
        observations.append(observation)
    structures.StructureSetROISequence = regions
    structures.ROIContourSequence = outlines
    structures.RTROIObservationsSequence = observations


def _interpreted(meaning: Meaning) -> str:
    """Organ, gross tumour volume, or nothing where the name does not say."""
    if meaning.is_lesion:
        return "GTV" if meaning.is_tumour else ""
    return "ORGAN" if meaning.known else ""


def _contour(points: NDArray[np.float64], frame: Frame | None, decimals: int) -> Dataset:
    item = _item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points))
    if frame is not None:
        image = _instance(frame.file.header)
        if frame.file.n_frames > 1:
            image.ReferencedFrameNumber = frame.index + 1
        item.ContourImageSequence = [image]
    data = "\\".join(map(f"{{:.{decimals}f}}".format, points.ravel().tolist())).encode()
    data += b" " * (len(data) % 2)
    # Bytes of unstated kind, which the implicit encoding does not store: as decimal strings,
    # pydicom would make an object of each of a million numbers.
    item.add_new(_CONTOUR_DATA, "UN", data)
    return item
