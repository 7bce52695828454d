"""Frames: every two-dimensional image of a series with its place, from one file or from many.

A file of the classic kind is one frame. An enhanced multi-frame file has many, described in
functional groups, some shared and some per frame (DICOM PS3.3, C.7.6.16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from leanseg.volumes.dicom.files import ELEMENTS, ImageFile
from leanseg.volumes.dicom.values import integer, items, numbers, text, texts

_CONTENT, _RESCALE = "FrameContentSequence", "PixelValueTransformationSequence"
PHASE_NAMES = {one["keyword"]: one["phase"] for one in ELEMENTS if one["phase"]}
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
        slope: Stored value times `slope` plus `intercept` is the real-world value; NaN where
            the header has one of the two alone, or contradicts itself.
        intercept: See there.
        units: RescaleType, "" where there is none; None without slope and intercept.
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
    units: str | None
    keys: dict[str, Key] = field(repr=False)
    localizer: bool = False

    @property
    def name(self) -> str:
        """The file as it is shown, and which of its frames this is."""
        return f"{self.file.shown}{f', frame {self.index + 1}' if self.file.n_frames > 1 else ''}"


@dataclass(frozen=True)
class Source:
    """Where the elements of a frame stand.

    Attributes:
        header: Of the file.
        groups: Functional groups of an enhanced file, the frame's own before the shared.
    """

    header: Any
    groups: tuple[Any, ...] = ()

    def parts(self, sequence: str) -> list[Any]:
        """What the groups say under a name, the frame's own first."""
        return [part for group in self.groups for part in items(group, sequence)[:1]]

    def numbers(self, sequence: str, keyword: str, alone: str = "") -> tuple[float, ...]:
        """Numbers from the groups or else from the header, there perhaps under another name.

        NaN where the frame's own group and the shared one contradict each other.
        """
        found = [values for part in self.parts(sequence) if (values := numbers(part, keyword))]
        if len(set(found)) > 1:
            return (math.nan,) * len(found[0])
        return found[0] if found else numbers(self.header, alone or keyword)

    def number(self, sequence: str, keyword: str, alone: str = "") -> float | None:
        """The first of these numbers, None where it is none."""
        found = self.numbers(sequence, keyword, alone)
        return found[0] if found and math.isfinite(found[0]) else None

    @property
    def image_type(self) -> tuple[str, ...]:
        """FrameType, or ImageType of the classic kind."""
        found = [part for name in _FRAME_TYPES for part in self.parts(name)]
        return texts(found[0], "FrameType") if found else texts(self.header, "ImageType")


def sources_of(header: Any) -> list[Source]:
    """Where the elements of each frame of a file stand; of one for a file of the classic kind."""
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    return [Source(header, (group, *shared)) for group in groups] or [Source(header)]


def frames_of(file: ImageFile) -> tuple[Frame, ...]:
    """The frames of a file in stored order."""
    dimensions = _phase_dimensions(file.header)
    sources = enumerate(sources_of(file.header))
    return tuple(_frame(file, index, source, dimensions) for index, source in sources)


def _frame(file: ImageFile, index: int, source: Source, dimensions: dict[int, str]) -> Frame:
    rescale = [source.numbers(_RESCALE, f"Rescale{part}") for part in ("Slope", "Intercept")]
    slope, intercept = (found[0] if len(found) == 1 else math.nan for found in rescale)
    units = next((text(part, "RescaleType") for part in source.parts(_RESCALE)), None)
    kind = source.image_type[2:]
    return Frame(
        file=file,
        index=index,
        position=source.numbers("PlanePositionSequence", "ImagePositionPatient"),
        axes=source.numbers("PlaneOrientationSequence", "ImageOrientationPatient"),
        spacing=source.numbers("PixelMeasuresSequence", "PixelSpacing"),
        thickness=source.number("PixelMeasuresSequence", "SliceThickness"),
        slope=slope if any(rescale) else 1.0,
        intercept=intercept if any(rescale) else 0.0,
        units=(units or text(source.header, "RescaleType")) if any(rescale) else None,
        keys=_phase_keys(source, dimensions),
        localizer=any(part.upper() in ("LOCALIZER", "SCOUT", "TOPOGRAM") for part in kind),
    )


def _phase_keys(source: Source, dimensions: dict[int, str]) -> dict[str, Key]:
    found: dict[str, Key | None] = {
        one["keyword"]: source.number(one["sequence"], one["inside"], one["keyword"])
        for one in ELEMENTS
        if one["sequence"]
    }
    found["ImageType"] = "\\".join(source.image_type) or None
    found["AcquisitionTime"] = text(source.header, "AcquisitionTime") or None
    for content in source.parts(_CONTENT)[:1]:
        found["StackID"] = text(content, "StackID") or None
        values = numbers(content, "DimensionIndexValues")
        for place, name in dimensions.items():
            if place < len(values) and found.get(name) is None:
                found[name] = values[place]
    return {keyword: value for keyword, value in found.items() if value is not None}


def _phase_dimensions(header: Any) -> dict[int, str]:
    """Which dimension indices of an enhanced file are not about space, and their names."""
    from pydicom.datadict import keyword_for_tag

    named = {}
    for number, item in enumerate(items(header, "DimensionIndexSequence")):
        tag = integer(item, "DimensionIndexPointer")
        if tag is not None and tag not in _SPATIAL_DIMENSIONS:
            named[number] = keyword_for_tag(tag) or f"dimension {number + 1}"
    return named
