"""DICOM RT Structure Sets (RTSTRUCT): label maps out as closed contours.

Reading is in `rtstruct_reader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.files import written_whole
from leanseg.volumes.dicom.codes import Meaning, meaning_of
from leanseg.volumes.dicom.contours import trace
from leanseg.volumes.dicom.files import named, require_package
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.geometry import Stack, affine_of
from leanseg.volumes.dicom.values import text
from leanseg.volumes.dicom.writing import (
    Names,
    Slices,
    colour_of,
    label_text,
    patient_and_study,
    prepared,
)
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

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
    names: Names,
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
            order of the values. A name with several values has the first to itself; the others
            have names of their own, whose structures lie inside this one.
        scan: The slices that the labels belong to (`Series.stack`).
        algorithm: Its name and version.

    Raises:
        LeansegError: If a value has no name, or the file cannot be written.
        GeometryError: If nothing can refer to the scan.
        MissingDependencyError: If pydicom is not installed.
    """
    path = Path(path)
    require_package()
    with named(path):
        members, slices, headers = prepared(path, labels, names, scan)
        structures = _header(headers[0], algorithm)
        structures.ReferencedFrameOfReferenceSequence = [_referenced(headers)]
        contours = _contours(slices, scan, members)
        # A ten-thousandth of a voxel: far less than contours keep from voxel centres.
        fineness_mm = 1e-4 * min(scan.frames[0].spacing)
        decimals = int(np.clip(np.ceil(-np.log10(fineness_mm)), 3, _MAX_DECIMALS))
        _add_structures(structures, contours, decimals)
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
    images = [_instance(header) for header in headers]
    uid = text(first, "SeriesInstanceUID")
    series = _item(SeriesInstanceUID=uid, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=text(first, "StudyInstanceUID"),
        RTReferencedSeriesSequence=[series],
    )
    frame_of_reference = text(first, "FrameOfReferenceUID")
    return _item(FrameOfReferenceUID=frame_of_reference, RTReferencedStudySequence=[study])


def _contours(
    slices: Slices, scan: Stack, members: Mapping[str, tuple[int, ...]]
) -> dict[str, list[_Contour]]:
    """The contours of each label, (points, 3) in LPS mm, slice by slice."""
    from scipy.ndimage import find_objects

    found: dict[str, list[_Contour]] = {name: [] for name in members}
    first, affine = scan.frames[0], slices.affine
    steps = (affine_of(first, affine[:3, 2]) if slices.is_scan_grid else affine)[:3, :2]
    for k, frame in enumerate(slices.frames):
        labelled = slices.array[k].T.astype(np.int32)
        boxes = dict(enumerate(find_objects(labelled), 1))
        for name, values in members.items():
            present = [box for value in values if (box := boxes.get(value)) is not None]
            if not present:
                continue
            box = tuple(
                slice(min(each.start for each in sides), max(each.stop for each in sides))
                for sides in zip(*present, strict=True)
            )
            for points in trace(np.isin(labelled[box], values)):
                within = points + [side.start for side in box]
                found[name].append((slices.origin(k) + within @ steps.T, frame))
    return found


def _add_structures(
    structures: Dataset,
    contours: Mapping[str, list[_Contour]],
    decimals: int,
) -> None:
    regions, outlines, observations = [], [], []
    for number, (name, parts) in enumerate(contours.items(), 1):
        region = _item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=structures.FrameOfReferenceUID,
            ROIName=label_text(name),
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription=structures.StructureSetDescription,
        )
        outline = _item(ROIDisplayColor=list(colour_of(number)), ReferencedROINumber=number)
        if parts:
            outline.ContourSequence = [_contour(*contour, decimals) for contour in parts]
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
