"""Frames: every two-dimensional image of a series with its place, from one file or from many.

A file of the classic kind is one frame. An enhanced multi-frame file has many, described in
functional groups, some shared and some per frame (DICOM PS3.3, C.7.6.16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.values import integer, items, number, numbers, text, texts

# What may tell the phases of a series apart, most telling first, and how it is named to users.
PHASE_KEYS = {
    "TemporalPositionIdentifier": "time",
    "TemporalPositionIndex": "time",
    "NominalPercentageOfCardiacPhase": "cardiac phase",
    "TriggerTime": "trigger time",
    "DiffusionBValue": "b-value",
    "EchoNumbers": "echo",
    "EchoTime": "echo time",
    "EffectiveEchoTime": "echo time",
    "ImageType": "image type",
    "FrameType": "image type",
    "FrameReferenceTime": "frame time",
    "AcquisitionNumber": "acquisition",
    "AcquisitionTime": "acquisition time",
}
_TEXT_KEYS = frozenset({"ImageType", "FrameType", "AcquisitionTime"})
# Where in the functional groups of an enhanced file the same things stand.
_FRAME_GROUPS = {
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "NominalPercentageOfCardiacPhase": (
        "CardiacSynchronizationSequence",
        "NominalPercentageOfCardiacPhase",
    ),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "EffectiveEchoTime": ("MREchoSequence", "EffectiveEchoTime"),
}
_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
# Dimensions that say where a frame lies, not when or how it was taken.
_SPATIAL_DIMENSIONS = frozenset(
    (0x00200032, 0x00209056, 0x00209057, 0x00201041, 0x00200037, 0x00200013, 0x0048021E, 0x0048021F)
)

Key = float | str


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One image and its place in the patient.

    Attributes:
        file: Where it is stored.
        index: Which of the file's frames it is, from 0.
        position: Centre of the first pixel, LPS mm; () where unknown.
        axes: Directions of growing column index and of growing row index, LPS; () if unknown.
        spacing: Distance between rows and between columns, mm; () where unknown.
        thickness: SliceThickness in mm, for information alone.
        slope: Stored value times `slope` plus `intercept` is the real-world value.
        intercept: See there.
        keys: What may tell phases apart.
        localizer: Whether the image says that it is one.
    """

    file: ImageFile
    index: int
    position: tuple[float, ...]
    axes: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float | None
    slope: float
    intercept: float
    keys: dict[str, Key] = field(repr=False)
    localizer: bool = False


def frames_of(file: ImageFile) -> tuple[Frame, ...]:
    """The frames of a file in stored order; one for a file of the classic kind."""
    header = file.header
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    if not groups:
        return (_classic(file),)
    shared = next(iter(items(header, "SharedFunctionalGroupsSequence")), None)
    first = _frame(file, 0, shared, shared, _classic(file))
    dimensions = _phase_dimensions(header)
    return tuple(
        _with_dimensions(_frame(file, index, group, shared, first), group, dimensions)
        for index, group in enumerate(groups)
    )


def n_frames(file: ImageFile) -> int:
    """How many frames the file says it has."""
    return integer(file.header, "NumberOfFrames") or 1


def _classic(file: ImageFile) -> Frame:
    header = file.header
    keys: dict[str, Key] = {}
    for keyword in PHASE_KEYS:
        if keyword in ("EffectiveEchoTime", "FrameType"):
            continue
        value = _key(header, keyword)
        if value is not None:
            keys[keyword] = value
    slope, intercept = numbers(header, "RescaleSlope"), numbers(header, "RescaleIntercept")
    return Frame(
        file=file,
        index=0,
        position=numbers(header, "ImagePositionPatient"),
        axes=numbers(header, "ImageOrientationPatient"),
        spacing=numbers(header, "PixelSpacing"),
        thickness=number(header, "SliceThickness"),
        slope=slope[0] if slope else 1.0,
        intercept=intercept[0] if intercept else 0.0,
        keys=keys,
        localizer=_is_localizer(texts(header, "ImageType")),
    )


def _key(header: Any, keyword: str) -> Key | None:
    if keyword in _TEXT_KEYS:
        return "\\".join(texts(header, keyword)) or None
    return number(header, keyword)


def _is_localizer(image_type: tuple[str, ...]) -> bool:
    return any(part.upper() in ("LOCALIZER", "SCOUT", "TOPOGRAM") for part in image_type[2:])


def _frame(file: ImageFile, index: int, group: Any, shared: Any, default: Frame) -> Frame:
    """A frame of an enhanced file: its own group, else the shared one, else `default`."""

    def found(sequence: str) -> Any:
        for source in (group, shared):
            inner = items(source, sequence) if source is not None else ()
            if inner:
                return inner[0]
        return None

    def of(sequence: str, keyword: str) -> tuple[float, ...]:
        inner = found(sequence)
        return () if inner is None else numbers(inner, keyword)

    slope = of("PixelValueTransformationSequence", "RescaleSlope")
    intercept = of("PixelValueTransformationSequence", "RescaleIntercept")
    thickness = of("PixelMeasuresSequence", "SliceThickness")
    keys = dict(default.keys)
    for keyword, (sequence, inner_keyword) in _FRAME_GROUPS.items():
        value = of(sequence, inner_keyword)
        if value and math.isfinite(value[0]):
            keys[keyword] = value[0]
    localizer = default.localizer
    for sequence in _FRAME_TYPES:
        inner = found(sequence)
        if inner is not None:
            keys["FrameType"] = "\\".join(texts(inner, "FrameType"))
            localizer = _is_localizer(texts(inner, "FrameType"))
    content = found("FrameContentSequence")
    if content is not None and text(content, "StackID"):
        keys["StackID"] = text(content, "StackID")
    return Frame(
        file=file,
        index=index,
        position=of("PlanePositionSequence", "ImagePositionPatient") or default.position,
        axes=of("PlaneOrientationSequence", "ImageOrientationPatient") or default.axes,
        spacing=of("PixelMeasuresSequence", "PixelSpacing") or default.spacing,
        thickness=thickness[0] if thickness else default.thickness,
        slope=slope[0] if slope else default.slope,
        intercept=intercept[0] if intercept else default.intercept,
        keys=keys,
        localizer=localizer,
    )


def _phase_dimensions(header: Any) -> dict[int, str]:
    """Which dimension indices of an enhanced file are not about space, and their names."""
    from pydicom.datadict import keyword_for_tag

    named = {}
    for number_, item in enumerate(items(header, "DimensionIndexSequence")):
        try:
            tag = int(item["DimensionIndexPointer"].value)
        except Exception:  # a dimension without a pointer says nothing
            continue
        if tag not in _SPATIAL_DIMENSIONS:
            named[number_] = keyword_for_tag(tag) or f"dimension {number_ + 1}"
    return named


def _with_dimensions(frame: Frame, group: Any, dimensions: dict[int, str]) -> Frame:
    content = next(iter(items(group, "FrameContentSequence")), None)
    if content is None or not dimensions:
        return frame
    values = numbers(content, "DimensionIndexValues")
    keys = dict(frame.keys)
    for index, name in dimensions.items():
        if index < len(values):
            keys.setdefault(name, values[index])
    return replace(frame, keys=keys)
