"""What a DICOM SEG file says of itself, checked before highdicom and the decoders believe it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leanseg.errors import FileFormatError
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import frames_of
from leanseg.volumes.dicom.geometry import SAME_PLACE_MM, check_frame
from leanseg.volumes.dicom.jpeg import declared_size, is_sound_jpeg
from leanseg.volumes.dicom.pixels import NATIVE, syntax_name
from leanseg.volumes.dicom.values import integer, items, text

if TYPE_CHECKING:
    from pydicom import Dataset

_SEGMENT = "SegmentIdentificationSequence"
_BITS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}


def check_seg(path: Path, dataset: Dataset, segments: Collection[int]) -> None:
    """Check that a file is whole, decodable, and one segment for each frame.

    NumberOfFrames is added where the file has one frame and leaves it out.

    Args:
        path: For messages.
        dataset: The whole file.
        segments: The numbers that it describes.

    Raises:
        FileFormatError: If not, naming the attribute.
        GeometryError: If a frame has no place.
    """
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(groups) == 1 and not text(dataset, "NumberOfFrames"):
        dataset.NumberOfFrames = 1
    fault = _header_fault(dataset, len(groups)) or _pixel_fault(dataset, len(groups))
    fault = fault or _frame_fault(path, dataset, segments)
    if fault:
        raise FileFormatError(f"{path}: {fault}; copy or export it again")


def _header_fault(dataset: Dataset, n_groups: int) -> str | None:
    kind = text(dataset, "SegmentationType")
    declared, bits = (integer(dataset, name) for name in ("NumberOfFrames", "BitsAllocated"))
    if kind not in _BITS:
        return f"its SegmentationType is {kind[:64] or 'missing'}, not one of {', '.join(_BITS)}"
    if bits not in _BITS[kind]:
        return f"its BitsAllocated is {bits}, which a {kind} segmentation cannot have"
    if not 0 < n_groups == declared:
        n_declared = "missing" if declared is None else declared
        return f"its NumberOfFrames is {n_declared}, but {n_groups} frames are described"
    largest = integer(dataset, "MaximumFractionalValue") or 0
    if kind == "FRACTIONAL" and not 0 < largest < 256:
        return f"its MaximumFractionalValue is {largest or 'missing'}"
    return None


def _pixel_fault(dataset: Dataset, n_frames: int) -> str | None:
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder

    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    rows, columns, bits = (integer(dataset, k) or 0 for k in ("Rows", "Columns", "BitsAllocated"))
    pixels = dataset.get("PixelData") or b""
    if syntax in NATIVE:
        expected = -(-rows * columns * n_frames * bits // 8)
        # An odd number is padded.
        if 0 < expected <= len(pixels) <= expected + 1:
            return None
        return f"has {len(pixels)} bytes of pixel data where its header says {expected}"
    missing = ["no package reads it"]
    with suppress(NotImplementedError):
        decoder = get_decoder(syntax)
        missing = [] if decoder.is_available else list(decoder.missing_dependencies)
    if missing:
        return f"is stored as {syntax_name(syntax)} ({'; '.join(missing)})"
    try:
        frames = list(generate_frames(pixels, number_of_frames=n_frames))
    except Exception:  # of damaged tables pydicom says so in many ways
        frames = []
    if len(frames) != n_frames:
        return f"its NumberOfFrames is {n_frames}, but {len(frames)} are stored"
    for frame in frames:
        if declared_size(frame) not in (None, (columns, rows)) or not is_sound_jpeg(frame, syntax):
            return "its pixel data are damaged, or of another size than Rows and Columns"
    return None


def _frame_fault(path: Path, dataset: Dataset, segments: Collection[int]) -> str | None:
    """What is wrong with the frames' places and segments."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    frames = frames_of(ImageFile(path, path, dataset, "", True, 0, 0, 0))
    is_label_map = text(dataset, "SegmentationType") == "LABELMAP"
    seen = set()
    for frame, group in zip(frames, groups, strict=True):
        check_frame(frame)
        found = [one for part in (group, *shared) for one in items(part, _SEGMENT)]
        number = integer(found[0], "ReferencedSegmentNumber") if found else None
        if number not in segments and not is_label_map:
            return f"its frame {frame.index + 1} is of segment {number}, which is not described"
        place = (number, *(round(value / SAME_PLACE_MM) for value in frame.position))
        if place in seen:
            return f"its frame {frame.index + 1} is the second of its segment in the same place"
        seen.add(place)
    return None
