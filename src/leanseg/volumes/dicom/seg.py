"""DICOM Segmentation objects (SEG): label maps out, with coded segments.

Reading is in `seg_reader`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from leanseg.files import written_whole
from leanseg.volumes.dicom.codes import meaning_of
from leanseg.volumes.dicom.files import PATIENT_AND_STUDY, MisplacedError, named, require_package
from leanseg.volumes.dicom.geometry import Stack, axes_of, heights
from leanseg.volumes.dicom.writing import (
    Names,
    Slices,
    colour_of,
    label_text,
    patient_and_study,
    prepared,
)
from leanseg.volumes.volume import Volume, label_dtype

if TYPE_CHECKING:
    from pydicom import Dataset

_RLE, _EXPLICIT = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1"
_SERIES_NUMBER = 300


def write_dicom_seg(
    path: str | Path,
    labels: Volume,
    names: Names,
    scan: Stack,
    *,
    kind: Literal["binary", "labelmap"] = "binary",
    algorithm: tuple[str, str],
) -> None:
    """Write a label map as a DICOM SEG file; it appears whole or not at all.

    Binary segments are numbered from 1 in ascending order of the labels' values, as the standard
    demands; in a label map the segment numbers are the values. Binary frames without a voxel of
    their segment are left out; label maps (run-length encoded) have every slice. Segments
    without any voxel are described, and if no segment has one, one empty frame for each is
    written. Where the labels lie on another grid than the scan, that grid is described and
    written, in the scan's frame of reference.

    Args:
        path: The file to write.
        labels: (i, j, k) integers, on any grid with right angles within its slices.
        names: Name of each value in the labels; coded by `leanseg.volumes.dicom.codes`. A name
            with several values has the first to itself; the others have names of their own, whose
            labels lie inside this one. Binary segments then overlap: each holds what lies inside
            it. A label map has one value a voxel, that of the innermost.
        scan: The slices that the labels belong to (`Series.stack`).
        kind: One frame per slice and segment, which every viewer reads, or one frame per slice
            with the labels' values (Supplement 243), which is newer and smaller.
        algorithm: Its name and version, told for every segment.

    Raises:
        LeansegError: If a value has no name, or the file cannot be written.
        GeometryError: If nothing can refer to the scan.
        MissingDependencyError: If highdicom is not installed.
    """
    path = Path(path)
    require_package("highdicom")
    with named(path):
        members, slices, headers = prepared(path, labels, names, scan)
        values = [own for own, *_ in members.values()]
        numbers = values if kind == "labelmap" else list(range(1, len(values) + 1))
        table = np.zeros(max(values) + 1, dtype=label_dtype(max(numbers)))
        table[values] = numbers
        if kind == "binary" and any(len(each) > 1 for each in members.values()):
            # The segments along the last axis, since a voxel may be in several.
            table = np.zeros((max(values) + 1, len(members)), dtype=np.uint8)
            for segment, each in enumerate(members.values()):
                table[list(each), segment] = 1
        pixels = np.empty((*slices.array.shape, *table.shape[1:]), table.dtype)
        for k, labelled in enumerate(slices.array):  # at once, the indices would take 8 bytes each
            pixels[k] = table[labelled]
        images = _source_images(headers, scan)
        geometry = _geometry(slices, scan)
        segments = zip(numbers, members, strict=True)
        descriptions = [_description(number, name, algorithm) for number, name in segments]
        segmentation = _segmentation(pixels, slices, geometry, images, descriptions, kind)
        n_bits = slices.array[0].size * segmentation.NumberOfFrames * segmentation.BitsAllocated
        n_bytes = (n_bits + 7) // 8
        # highdicom fills up odd lengths with a character; the standard wants a zero.
        segmentation.PixelData = segmentation.PixelData[:n_bytes] + b"\0" * (n_bytes % 2)
        if kind == "labelmap":
            # Named, since another of pydicom's plugins ends the process on frames of some sizes.
            segmentation.compress(_RLE, encoding_plugin="pylibjpeg", generate_instance_uid=False)
        with written_whole(path) as temporary:
            segmentation.save_as(temporary, enforce_file_format=True)


def _segmentation(
    pixels: NDArray[Any],
    slices: Slices,
    geometry: Mapping[str, Any],
    images: list[Dataset],
    descriptions: list[Any],
    kind: str,
) -> Any:
    from highdicom.content import PlanePositionSequence
    from highdicom.seg import Segmentation
    from pydicom.uid import generate_uid

    import leanseg

    if not pixels.any():
        pixels = pixels[:1]
    positions = [slices.origin(k).tolist() for k in range(len(pixels))]
    is_label_map = kind == "labelmap"
    return Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type="LABELMAP" if is_label_map else "BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=_SERIES_NUMBER,
        series_description="Segmentation",
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="leanseg",
        manufacturer_model_name="leanseg",
        software_versions=leanseg.__version__,
        device_serial_number="none",
        transfer_syntax_uid=_EXPLICIT,
        plane_positions=[PlanePositionSequence("PATIENT", position) for position in positions],
        omit_empty_frames=not is_label_map and bool(pixels.any()),
        content_label="SEGMENTATION",
        content_description="Automatic segmentation",
        **geometry,
    )


def _geometry(slices: Slices, scan: Stack) -> dict[str, Any]:
    """Plane orientation and pixel measures: the scan's own where the grid is."""
    from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence

    steps = np.linalg.norm(slices.affine[:3, :3], axis=0)
    axes = slices.affine[:3, :2] / steps[:2]
    if abs(float(axes[:, 0] @ axes[:, 1])) > 1e-3:
        msg = "the slices of the label map have no right angles, which DICOM cannot say"
        raise MisplacedError(msg, "resample the label map to the scan's grid first")
    step_mm = abs(float(slices.affine[:3, 2] @ np.cross(axes[:, 0], axes[:, 1])))
    spacing = (float(steps[1]), float(steps[0]))
    if slices.is_scan_grid:
        axes, spacing = axes_of(scan.frames[0]), scan.frames[0].spacing  # type: ignore[assignment]
    return {
        "plane_orientation": PlaneOrientationSequence("PATIENT", axes.T.ravel().tolist()),
        "pixel_measures": PixelMeasuresSequence(list(spacing), step_mm, step_mm),
    }


def _source_images(headers: list[Dataset], scan: Stack) -> list[Dataset]:
    """The headers that highdicom needs, with one common orientation and without oddities."""
    from pydicom import Dataset

    first, study = headers[0], patient_and_study(headers[0])
    step_mm = float(np.diff(heights(scan.frames)).min())
    images = []
    for header in headers:
        image = Dataset(header)
        for keyword in PATIENT_AND_STUDY:
            image.pop(keyword, None)
        image.update(study)
        if "ImagePositionPatient" in header:
            image.ImageOrientationPatient = first.ImageOrientationPatient
            image.PixelSpacing = first.PixelSpacing
            # SliceThickness is how thick, not how far apart, and often wrong as either.
            image.SliceThickness = image.SpacingBetweenSlices = f"{step_mm:.10g}"
        images.append(image)
    return images


def _description(number: int, name: str, algorithm: tuple[str, str]) -> Any:
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    meaning = meaning_of(name)
    identification = AlgorithmIdentificationSequence(
        name=label_text(algorithm[0]),
        family=codes.DCM.ArtificialIntelligence,
        version=label_text(algorithm[1]),
    )
    description = SegmentDescription(
        segment_number=number,
        segment_label=label_text(name),
        segmented_property_category=meaning.category,
        segmented_property_type=meaning.type,
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification,
        anatomic_regions=meaning.region and [meaning.region],
        display_color=CIELabColor.from_rgb(*colour_of(number)),
    )
    if meaning.side is not None:
        side = [CodedConcept.from_code(meaning.side)]
        if meaning.region is None:
            kind = description.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = side
        else:
            description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = side
    return description
