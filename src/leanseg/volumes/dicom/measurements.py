"""Measurements of the segments of a DICOM SEG as a structured report (TID 1500)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanseg.files import written_whole
from leanseg.volumes.dicom.codes import meaning_of
from leanseg.volumes.dicom.files import PATIENT_AND_STUDY, named, require_package
from leanseg.volumes.dicom.geometry import Stack
from leanseg.volumes.dicom.objects import open_object
from leanseg.volumes.dicom.series import SEGMENTATION
from leanseg.volumes.dicom.values import text
from leanseg.volumes.dicom.writing import headers_of, label_text, patient_and_study

if TYPE_CHECKING:
    from pydicom import Dataset

_SERIES_NUMBER = 301


def write_measurements(
    path: Path,
    segmentation: Path,
    scan: Stack,
    modality: str,
    measured: Mapping[int, tuple[str, Mapping[str, float | None]]],
) -> None:
    """Write measurements as a Comprehensive 3D SR; it appears whole or not at all.

    Args:
        path: The file to write.
        segmentation: The SEG file whose segments were measured.
        scan: The slices that they were measured in (`Series.stack`).
        modality: Of the scan: grey values are reported of CT (Hounsfield units) and MR.
        measured: Segment number to its name and measures, as `volume_ml`, `mean`, `sd`,
            `axial_diameter_mm`, `width_mm`, `depth_mm`, `height_mm`; those that are None are left
            out.

    Raises:
        GeometryError: If nothing can refer to the scan.
        FileFormatError: If the segmentation cannot be read.
        MissingDependencyError: If highdicom is not installed.
    """
    require_package("highdicom")
    from highdicom.sr import Comprehensive3DSR, MeasurementReport
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    with named(segmentation):
        segments = open_object(segmentation, SEGMENTATION).header
        images = headers_of(scan)
    with named(path):
        study = patient_and_study(segments)
        for keyword in PATIENT_AND_STUDY:
            segments.pop(keyword, None)
        segments.update(study)
        groups = [
            _group(number, name, measures, segments, images[0], modality)
            for number, (name, measures) in measured.items()
        ]
        is_mr = modality == "MR"
        report = MeasurementReport(
            observation_context=_observer(),
            procedure_reported=codes.cid100.MRUnspecifiedBodyRegion
            if is_mr
            else codes.cid100.CTUnspecifiedBodyRegion,
            imaging_measurements=groups,
        )
        document = Comprehensive3DSR(
            evidence=[segments, *images],
            content=report,
            series_instance_uid=generate_uid(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="leanseg",
            series_description="Measurements",
            is_complete=True,
        )
        with written_whole(path) as temporary:
            document.save_as(temporary, enforce_file_format=True)


def _observer() -> Any:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    import leanseg

    device = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["leanseg", leanseg.__version__]),
        name="leanseg",
        manufacturer_name="leanseg",
        model_name=leanseg.__version__,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _group(
    number: int,
    name: str,
    measures: Mapping[str, float | None],
    segments: Dataset,
    image: Dataset,
    modality: str,
) -> Any:
    from highdicom.sr import (
        FindingSite,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.uid import generate_uid

    meaning = meaning_of(name)
    # Of an organ it is the site too; of a lesion the organ that it lies in.
    site = meaning.region if meaning.is_lesion else meaning.type
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(generate_uid(), label_text(name)),
        referenced_segment=ReferencedSegment(
            text(segments, "SOPClassUID"),
            text(segments, "SOPInstanceUID"),
            number,
            source_series=SourceSeriesForSegmentation(text(image, "SeriesInstanceUID")),
        ),
        finding_type=meaning.type,
        finding_category=meaning.category,
        finding_sites=[FindingSite(site, laterality=meaning.side)] if site else None,
        measurements=_measurements(measures, modality),
    )


def _measurements(measures: Mapping[str, float | None], modality: str) -> list[Any]:
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    mm = codes.UCUM.Millimeter
    kinds: dict[str, tuple[Any, ...]] = {
        "volume_ml": (codes.SCT.Volume, Code("ml", "UCUM", "milliliter")),
        "axial_diameter_mm": (codes.SCT.LongAxis, mm),
        "width_mm": (codes.SCT.Width, mm),
        "depth_mm": (codes.SCT.Depth, mm),
        "height_mm": (codes.DCM.Height, mm),
    }
    grey = {
        "CT": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
        "MR": (codes.DCM.MRSignalIntensity, codes.UCUM.NoUnits),
    }.get(modality)
    if grey is not None:
        kinds["mean"] = *grey, codes.SCT.Mean
        kinds["sd"] = *grey, codes.SCT.StandardDeviation
    return [
        Measurement(concept, value, unit, derivation=next(iter(derivation), None))
        for key, (concept, unit, *derivation) in kinds.items()
        if (value := measures[key]) is not None
    ]
