"""DICOM Segmentation objects in, as label maps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes.dicom.values import decoded, integer, items, numbers, text
from leanseg.volumes.dicom_objects import (
    check_frame_of_reference,
    chosen,
    cut_short,
    open_object,
    unique_names,
)
from leanseg.volumes.dicom_sources import SAME_PLACE_VOXELS
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Slices closer than this lie in the same place.
_SAME_HEIGHT_MM = 0.01
# Decoded with this plugin: another one of pydicom's ends the process on some damaged frames.
_PYLIBJPEG = frozenset(("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"))


@dataclass(frozen=True, eq=False)
class _Frames:
    """Where the frames lie.

    Attributes:
        origins: (frames, 3) centre of the first pixel, RAS mm.
        across: (3,) step from column to column, RAS mm.
        down: (3,) step from row to row.
        step_mm: Declared distance between slices, None where it is not.
        segments: (frames,) segment number; 0 in a label map.
        size: Rows, columns.
    """

    origins: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    step_mm: float | None
    segments: NDArray[np.int64]
    size: tuple[int, int]


def read_dicom_seg(
    path: str | Path,
    scan: Volume | None = None,
    *,
    segments: Mapping[str, int] | None = None,
    frame_of_reference: str | None = None,
) -> tuple[Volume, dict[str, int]]:
    """Read a DICOM SEG file: BINARY, FRACTIONAL (from one half on) or LABELMAP.

    Where segments overlap, the one with the higher number lies on top.

    Args:
        path: The file, or a folder or zip file that holds one.
        scan: Gives the grid; slices that the file leaves out are background there. Without it
            the grid is the file's own, from its first to its last slice.
        segments: Which segments to read and as which label values, by name; those that the file
            lacks are passed over. None for all, by segment number.
        frame_of_reference: FrameOfReferenceUID of the scan, checked if given.

    Returns:
        The labels, (i, j, k) uint8 or uint16, and the name of each value; without a scan, i is
        the column, j the row and k the slice.

    Raises:
        FileFormatError: If it is not a DICOM SEG file, or cut short.
        GeometryError: If its voxels are not those of the scan's grid, or form no grid.
        LeansegError: If it has none of the segments asked for.
    """
    path = Path(path)
    with warnings.catch_warnings():
        # pydicom's warnings quote values, which may name the patient.
        warnings.simplefilter("ignore")
        return _read(path, scan, segments, frame_of_reference)


def _read(
    path: Path,
    scan: Volume | None,
    segments: Mapping[str, int] | None,
    frame_of_reference: str | None,
) -> tuple[Volume, dict[str, int]]:
    dataset = open_object(path, (SEGMENTATION, LABEL_MAP), "a DICOM Segmentation")
    found_uid = text(dataset, "FrameOfReferenceUID")
    check_frame_of_reference(path, found_uid, frame_of_reference)
    names = unique_names(
        {
            integer(item, "SegmentNumber") or 0: decoded(item, "SegmentLabel")
            for item in items(dataset, "SegmentSequence")
        }
    )
    # Segment 0 of a label map describes the background.
    names = {name: number for name, number in names.items() if number > 0}
    if not names:
        raise FileFormatError(f"{path}: describes no segment; export the segmentation again")
    values = dict(zip(names.values(), names.values(), strict=True))
    if segments is not None:
        values = chosen(path, names, segments)
        names = {name: value for name, value in segments.items() if value in values.values()}
    frames = _frames(path, dataset)
    own = _own_grid(path, frames) if scan is None else None
    affine, shape = own or (scan.affine, scan.shape)  # type: ignore[union-attr]
    labels = np.zeros(shape, dtype=np.uint8 if max(values.values()) < 256 else np.uint16)
    _place(path, labels, affine, frames, _pixels(path, dataset, frames), values)
    header = None if scan is None else scan.header
    return Volume(labels, affine, path, header), names


def _frames(path: Path, dataset: Dataset) -> _Frames:
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")

    def each(sequence: str, keyword: str) -> NDArray[np.float64]:
        found = []
        for group in groups:
            parts = (
                numbers(x, keyword) for part in (group, *shared) for x in items(part, sequence)
            )
            found.append(next((part for part in parts if part), ()))
        if not found or not found[0] or len({len(values) for values in found}) > 1:
            msg = f"{path}: its frames have no {keyword}, so they have no place in the patient"
            raise GeometryError(f"{msg}; export the segmentation again")
        return np.array(found)

    origins = each("PlanePositionSequence", "ImagePositionPatient")
    axes = each("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = each("PixelMeasuresSequence", "PixelSpacing")
    is_sane = origins.shape[1] == 3 and axes.shape[1] == 6 and spacing.shape[1] == 2
    if not is_sane or not all(np.isfinite(x).all() for x in (origins, axes, spacing)):
        raise cut_short(path)
    if np.ptp(axes, axis=0).max() > 1e-4 or np.ptp(spacing, axis=0).max() > 1e-4:
        msg = f"{path}: its frames differ in direction or pixel spacing, so they form no grid"
        raise GeometryError(f"{msg}; export the segmentation again")
    across, down = axes[0].reshape(2, 3) / np.linalg.norm(axes[0].reshape(2, 3), axis=1)[:, None]
    number_of = np.zeros(len(groups))
    if text(dataset, "SOPClassUID") != LABEL_MAP:
        number_of = each("SegmentIdentificationSequence", "ReferencedSegmentNumber")[:, 0]
    steps = [
        numbers(measures, "SpacingBetweenSlices")
        for part in shared
        for measures in items(part, "PixelMeasuresSequence")
    ]
    return _Frames(
        origins @ _LPS_TO_RAS[:3, :3],
        _LPS_TO_RAS[:3, :3] @ across * spacing[0, 1],
        _LPS_TO_RAS[:3, :3] @ down * spacing[0, 0],
        abs(steps[0][0]) if steps and steps[0] and steps[0][0] else None,
        number_of.astype(np.int64),
        (integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0),
    )


def _own_grid(path: Path, frames: _Frames) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Affine (column, row, slice) to RAS mm and shape of the grid that the frames span."""
    normal = np.cross(frames.across, frames.down)
    normal /= np.linalg.norm(normal)
    heights = frames.origins @ normal
    order = np.argsort(heights)
    lowest, highest = frames.origins[order[0]], frames.origins[order[-1]]
    gaps = np.diff(heights[order])
    gaps = gaps[gaps > _SAME_HEIGHT_MM]
    step_mm = frames.step_mm or (float(gaps.min()) if len(gaps) else 1.0)
    if len(gaps) and _unevenness(heights, step_mm) > SAME_PLACE_VOXELS:
        step_mm = float(gaps.min())  # what is declared may be wrong
    if _unevenness(heights, step_mm) > SAME_PLACE_VOXELS:
        msg = f"{path}: its slices are not evenly spaced, so they form no grid"
        raise GeometryError(f"{msg}; place them on their scan")
    n_steps = round((heights.max() - heights.min()) / step_mm)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = frames.across, frames.down
    affine[:3, 2] = (highest - lowest) / n_steps if n_steps else normal * step_mm
    affine[:3, 3] = lowest
    return affine, (frames.size[1], frames.size[0], n_steps + 1)


def _unevenness(heights: NDArray[np.float64], step_mm: float) -> float:
    steps = (heights - heights.min()) / step_mm
    return float(np.abs(steps - np.rint(steps)).max())


def _pixels(path: Path, dataset: Dataset, frames: _Frames) -> Iterator[NDArray[Any]]:
    """The frames in order: (row, column), boolean, or segment numbers in a label map."""
    stored = dataset.get("PixelData")
    n_pixels = frames.size[0] * frames.size[1]
    n_frames = len(frames.origins)
    bits = integer(dataset, "BitsAllocated") or 0
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2")
    if stored is None or not n_pixels or integer(dataset, "NumberOfFrames") != n_frames:
        raise cut_short(path)
    from pydicom.pixels.utils import iter_pixels
    from pydicom.uid import UID

    if UID(syntax).is_compressed:
        plugin = "pylibjpeg" if syntax in _PYLIBJPEG else ""
        try:
            yield from map(_as_stored(dataset), iter_pixels(dataset, decoding_plugin=plugin))
        except Exception as error:  # a decoder of damaged bytes may fail in any way
            raise cut_short(path) from error
        return
    if len(stored) * 8 < n_frames * n_pixels * bits:
        raise cut_short(path)
    convert = _as_stored(dataset)
    kinds: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype("<u2")}
    if bits != 1 and bits not in kinds:
        raise FileFormatError(f"{path}: has {bits} bits a pixel, expected 1, 8 or 16")
    for frame in range(n_frames):
        first = frame * n_pixels
        if bits == 1:
            # Frames follow one another without padding, so one may begin inside a byte.
            packed = np.frombuffer(stored, np.uint8)[first // 8 : (first + n_pixels + 7) // 8]
            bit = np.unpackbits(packed, bitorder="little")[first % 8 :][:n_pixels]
            yield bit.view(bool).reshape(frames.size)
        else:
            pixels = np.frombuffer(stored, kinds[bits], n_pixels, first * bits // 8)
            yield convert(pixels.reshape(frames.size))


def _as_stored(dataset: Dataset) -> Any:
    """What turns stored pixels into booleans, or leaves the numbers of a label map."""
    if text(dataset, "SOPClassUID") == LABEL_MAP:
        return lambda pixels: pixels
    if text(dataset, "SegmentationType") == "FRACTIONAL":
        half = (integer(dataset, "MaximumFractionalValue") or 255) / 2
        return lambda pixels: pixels >= half
    return lambda pixels: pixels > 0


def _place(
    path: Path,
    labels: NDArray[Any],
    affine: NDArray[np.float64],
    frames: _Frames,
    pixels: Iterator[NDArray[Any]],
    values: Mapping[int, int],
) -> None:
    """Lay the frames onto the labels' grid, higher segment numbers on top of lower ones."""
    inverse = np.linalg.inv(affine)
    origins = frames.origins @ inverse[:3, :3].T + inverse[:3, 3]
    steps = np.stack([frames.down, frames.across], axis=1)
    steps = inverse[:3, :3] @ steps  # (3, 2): voxels of the grid from row to row, column to column
    far = np.array(frames.size) - 1
    if not _is_lattice(origins, steps, far):
        msg = f"{path}: its voxels are not those of the scan's grid (it has frames of "
        msg += f"{frames.size[1]} x {frames.size[0]} pixels, the scan {labels.shape} voxels)"
        raise GeometryError(f"{msg}; give the scan it was made on, or resample it")
    whole, first = np.rint(steps).astype(int), np.rint(origins).astype(int)
    rows, columns = (int(np.flatnonzero(whole[:, n])[0]) for n in range(2))
    slices = 3 - rows - columns
    # A view of the labels as (slice, row, column), in the frames' directions.
    view = labels.transpose(slices, rows, columns)
    for axis, place in ((1, rows), (2, columns)):
        if whole[place, axis - 1] < 0:
            view = np.flip(view, axis)
            first[:, place] = labels.shape[place] - 1 - first[:, place]
    table = np.zeros(65536, dtype=labels.dtype)
    table[list(values)] = list(values.values())
    highest = np.zeros(view.shape, dtype=np.uint16) if _unordered(frames.segments) else None
    for number, (k, j, i), frame in zip(
        frames.segments.tolist(), first[:, [slices, rows, columns]].tolist(), pixels, strict=True
    ):
        if number and number not in values:
            continue
        marked = frame if number else table[frame] > 0
        inner, target = _overlap((j, i), frames.size, view.shape[1:])
        is_inside = 0 <= k < view.shape[0]
        if marked.any() and (not is_inside or marked.sum() != marked[inner].sum()):
            msg = f"{path}: has voxels outside of the scan; give the scan it was made on"
            raise GeometryError(msg)
        if not is_inside:
            continue
        on_top = marked[inner]
        if number and highest is not None:
            on_top = on_top & (highest[k][target] <= number)
            highest[k][target][on_top] = number
        new = values[number] if number else table[frame[inner]][on_top]
        view[k][target][on_top] = new


def _unordered(segments: NDArray[np.int64]) -> bool:
    return bool((np.diff(segments) < 0).any())


def _is_lattice(
    origins: NDArray[np.float64], steps: NDArray[np.float64], far: NDArray[np.int64]
) -> bool:
    """Whether the frames' pixels are voxels of the grid, to a tenth of a voxel everywhere."""
    whole = np.rint(steps)
    if not (np.abs(whole).sum(axis=0) == 1).all() or (np.abs(whole).sum(axis=1) > 1).any():
        return False
    corners = [origins + steps @ (far * part) for part in ((0, 0), (0, 1), (1, 0), (1, 1))]
    return all(bool((np.abs(c - np.rint(c)) <= SAME_PLACE_VOXELS).all()) for c in corners)


def _overlap(
    first: tuple[int, int], size: tuple[int, int], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a frame that lies in the grid, and where it lies there."""
    spans = [
        (max(0, start), max(max(0, start), min(n, start + length)), start)
        for start, length, n in zip(first, size, shape, strict=True)
    ]
    inner = tuple(slice(low - start, high - start) for low, high, start in spans)
    return inner, tuple(slice(low, high) for low, high, _ in spans)
