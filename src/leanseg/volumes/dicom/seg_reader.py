"""DICOM Segmentation objects in, as label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes.axes import LPS_TO_RAS, axis_view
from leanseg.volumes.dicom.files import ImageFile, MisplacedError, UnreadableError, named
from leanseg.volumes.dicom.frames import Frame, frames_of, sources_of
from leanseg.volumes.dicom.geometry import (
    SAME_PLACE_MM,
    affine_of,
    check_frame,
    heights,
    normal_of,
    same_directions,
)
from leanseg.volumes.dicom.objects import chosen, numbers_by_name, open_object, require_frame_of
from leanseg.volumes.dicom.pixels import pixel_fault, stored_values
from leanseg.volumes.dicom.series import SEGMENTATION
from leanseg.volumes.dicom.values import integer, items, text
from leanseg.volumes.dicom.writing import SAME_PLACE_VOXELS
from leanseg.volumes.grids import bounding_box
from leanseg.volumes.volume import Volume, label_dtype

if TYPE_CHECKING:
    from pydicom import Dataset

_BITS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}
# Beyond this the frames lie on no grid that a scan has.
_MOST_SLICES = 10_000


def read_dicom_seg(
    path: str | Path,
    scan: Volume | None = None,
    *,
    segments: Mapping[str, int] | int | None = None,
) -> tuple[Volume, dict[str, int]]:
    """Read a DICOM SEG file: BINARY, LABELMAP, or FRACTIONAL.

    Of FRACTIONAL, what is at least half of the largest value belongs to the segment, whether it
    means occupancy or probability.

    Args:
        path: The file, or a folder or zip file that holds one.
        scan: Gives the grid; slices that the file leaves out are background there. Without it
            the grid is the file's own, from its first to its last slice.
        segments: Which segments to read and as which label values, by name; those that the file
            lacks are passed over. A number takes all as that label. None for all, by segment
            number.

    Returns:
        The labels, (i, j, k) uint8 or uint16, and the name of each value; without a scan, i is
        the column, j the row and k the slice.

    Raises:
        FileFormatError: If it is not a DICOM SEG file, or cut short, or contradicts itself.
        GeometryError: If its voxels are not those of the scan's grid, or form no grid, or lie in
            another frame of reference, or segments overlap.
        LeansegError: If it has none of the segments asked for.
        MissingDependencyError: If a package is needed to decode it.
    """
    path = Path(path)
    with named(path):
        file = open_object(path, SEGMENTATION)
        described = items(file.header, "SegmentSequence")
        present = numbers_by_name(described, "SegmentNumber", "SegmentLabel")
        # Number 0 of a label map describes the background.
        present = {name: number for name, number in present.items() if number > 0}
        if not present:
            raise UnreadableError("describes no segment")
        values, names = chosen(present, present if segments is None else segments)
        require_frame_of(scan, text(file.header, "FrameOfReferenceUID"))
        fault = _fault(file, set(present.values())) or pixel_fault(file, of_labels=True)
        if fault:
            raise UnreadableError(fault)
        labels = _labels(path, file, values, scan)
        return (labels if scan is None else _placed(labels, scan)), names


def _fault(file: ImageFile, known: set[int]) -> str | None:
    """What is wrong with the kind of a segmentation, and the segments of its frames."""
    kind, bits = text(file.header, "SegmentationType"), integer(file.header, "BitsAllocated")
    if kind not in _BITS:
        return f"its SegmentationType is {kind[:64] or 'missing'}, not one of {', '.join(_BITS)}"
    if bits not in _BITS[kind]:
        return f"its BitsAllocated is {bits}, which a {kind} segmentation cannot have"
    if kind == "FRACTIONAL" and not 0 < (integer(file.header, "MaximumFractionalValue") or 0) < 256:
        return "its MaximumFractionalValue is missing or makes no sense"
    n_described = len(items(file.header, "PerFrameFunctionalGroupsSequence"))
    if n_described != file.n_frames:
        declared = text(file.header, "NumberOfFrames")[:16] or "missing"
        return f"its NumberOfFrames is {declared}, but {n_described} are described"
    for n, number in enumerate(_numbers(file.header), start=1):
        if number not in known and kind != "LABELMAP":
            return f"its frame {n} is of segment {number}, which is not described"
    return None


def _numbers(header: Dataset) -> list[int | None]:
    """The segment of each frame."""
    found = [
        source.number("SegmentIdentificationSequence", "ReferencedSegmentNumber")
        for source in sources_of(header)
    ]
    return [None if number is None else int(number) for number in found]


def _labels(path: Path, file: ImageFile, values: Mapping[int, int], scan: Volume | None) -> Volume:
    """The segments with these numbers as labels with these values, on the file's own grid."""
    frames = frames_of(file)
    places, affine = _grid(frames, scan)
    columns, rows = file.size
    labels = np.zeros((columns, rows, max(places) + 1), label_dtype(max(values.values())))
    seen = set()
    for frame, number, k in zip(frames, _numbers(file.header), places, strict=True):
        if (number, k) in seen:
            msg = f"its frame {frame.index + 1} is the second of its segment in the same place"
            raise UnreadableError(msg)
        seen.add((number, k))
        if number is not None and number not in values:
            continue
        found = _found(frame, number, values).T
        part = labels[:, :, k]
        clash = (found > 0) & (part > 0) & (part != found)
        if clash.any():
            other = next(n for n, value in values.items() if value == part[clash][0])
            msg = f"segments {other} and {number} overlap, and a voxel has one label"
            raise MisplacedError(msg, "choose segments that do not, by name")
        np.copyto(part, found, where=found > 0, casting="same_kind")
    return Volume(labels, LPS_TO_RAS @ affine, path)


def _found(frame: Frame, number: int | None, values: Mapping[int, int]) -> NDArray[np.uint16]:
    """The labels in a frame, (rows, columns): of one segment, or of a label map."""
    header, stored = frame.file.header, stored_values(frame)
    if text(header, "SegmentationType") == "LABELMAP":
        described = {integer(one, "SegmentNumber") for one in items(header, "SegmentSequence")}
        known = {0, integer(header, "PixelPaddingValue"), *described}
        unknown = sorted(set(np.unique(stored).tolist()) - known)
        if unknown:
            raise UnreadableError(f"has voxels of segment {unknown[0]}, which it does not describe")
        table = np.zeros(65536, np.uint16)
        table[list(values)] = list(values.values())
        return np.asarray(table[stored])
    least = 1
    if text(header, "SegmentationType") == "FRACTIONAL":
        least = -(-(integer(header, "MaximumFractionalValue") or 0) // 2)
    return np.where(stored >= least, np.uint16(values[number or 0]), np.uint16(0))


def _grid(frames: Sequence[Frame], scan: Volume | None) -> tuple[list[int], NDArray[np.float64]]:
    """The slice of each frame, and the affine (4, 4) from (column, row, slice) to LPS mm."""
    for frame in frames:
        check_frame(frame)
    height, normal = heights(frames), normal_of(frames[0])
    first = frames[int(height.argmin())]
    height -= height.min()
    step_mm = _step_mm(frames[0], np.unique(height), scan)
    places = np.rint(height / step_mm)
    affine = affine_of(first, normal * step_mm)
    positions = np.array([frame.position for frame in frames])
    off = np.linalg.norm(positions - first.position - np.outer(places * step_mm, normal), axis=1)
    alike = all(
        same_directions(frame, first) and np.allclose(frame.spacing, first.spacing, rtol=1e-4)
        for frame in frames
    )
    nearest = SAME_PLACE_VOXELS * min(step_mm, *first.spacing)
    if not alike or off.max() > nearest or places.max() >= _MOST_SLICES:
        if scan is not None:
            raise _off_grid(*first.file.size, scan)
        msg = "its frames are not evenly spaced or differ in direction or pixel spacing, so they "
        raise MisplacedError(f"{msg}form no grid", "place them on their scan")
    return places.astype(int).tolist(), affine


def _step_mm(frame: Frame, height: NDArray[np.float64], scan: Volume | None) -> float:
    """From slice to slice: the scan's, which a file may omit or have wrong, or else its own.

    Slices without any segment are left out of files, so the step need not show in the positions.
    """
    if scan is not None:
        normal = LPS_TO_RAS[:3, :3] @ normal_of(frame)
        return float(np.abs(normal @ scan.affine[:3, :3]).max())
    source = sources_of(frame.file.header)[0]
    declared = source.number("PixelMeasuresSequence", "SpacingBetweenSlices") or -1.0
    gaps = np.diff(height)
    gaps = gaps[gaps > SAME_PLACE_MM]
    if not len(gaps):
        step_mm = declared if declared > 0 else frame.thickness or 0.0
        if step_mm <= 0:
            raise MisplacedError("its SpacingBetweenSlices is missing", "place it on its scan")
        return step_mm
    steps = gaps.min() / declared
    evenly = steps > 0.5 and abs(steps - round(steps)) < SAME_PLACE_VOXELS
    return float(declared if evenly else gaps.min())


def _placed(labels: Volume, scan: Volume) -> Volume:
    """Labels on the grid of their scan, of which they may fill a part."""
    # The scan's indices in place of the world, so that its axes are those that letters name.
    array, to_scan = axis_view(labels.array, np.linalg.inv(scan.affine) @ labels.affine, "RAS")
    first = np.rint(to_scan[:3, 3]).astype(int)
    off = to_scan - np.eye(4)
    off[:3, 3] -= first
    # The corner where all that is off adds up.
    farthest = np.abs(off[:3, :3]) @ (np.array(array.shape) - 1) + np.abs(off[:3, 3])
    if farthest.max() > SAME_PLACE_VOXELS:
        raise _off_grid(*labels.shape[:2], scan)
    result = np.zeros(scan.shape, array.dtype)
    box = bounding_box(array)
    if box is not None:
        start, stop = first + box.start, first + box.stop
        if (start < 0).any() or (stop > scan.shape).any():
            raise MisplacedError("has voxels outside of the scan")
        result[tuple(map(slice, start, stop))] = array[box.slices]
    return Volume(result, scan.affine, labels.path, scan.header)


def _off_grid(columns: int, rows: int, scan: Volume) -> MisplacedError:
    msg = f"its voxels are not those of the scan's grid (it has frames of {columns} x {rows} "
    msg += f"pixels, the scan {scan.shape} voxels)"
    return MisplacedError(msg, f"{MisplacedError.usual}, or resample it")
