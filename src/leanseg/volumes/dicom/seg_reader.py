"""DICOM Segmentation objects in, as label maps, through highdicom."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes.axes import LPS_TO_RAS
from leanseg.volumes.dicom.files import require_package
from leanseg.volumes.dicom.objects import (
    chosen,
    numbered,
    open_object,
    require_frame_of,
    unique_names,
)
from leanseg.volumes.dicom.seg_checks import check_seg
from leanseg.volumes.dicom.series import SEGMENTATION
from leanseg.volumes.dicom.values import integer, items, numbers, text
from leanseg.volumes.dicom.writing import SAME_PLACE_VOXELS
from leanseg.volumes.grids import bounding_box
from leanseg.volumes.volume import Volume, label_dtype

if TYPE_CHECKING:
    from pydicom import Dataset

# Decoded with this plugin: another one of pydicom's ends the process on some damaged frames.
_PYLIBJPEG = frozenset(("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"))


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
        MissingDependencyError: If highdicom is not installed.
    """
    path = Path(path)
    require_package("highdicom")
    with warnings.catch_warnings():
        # pydicom's warnings quote values, which may name the patient.
        warnings.simplefilter("ignore")
        dataset = open_object(path, SEGMENTATION)
        present = _segments(path, dataset)
        values, names = chosen(path, present, present if segments is None else segments)
        require_frame_of(scan, path, [text(dataset, "FrameOfReferenceUID")])
        check_seg(path, dataset, set(present.values()))
        labels = _labels(path, dataset, values, scan)
    return (labels if scan is None else _placed(labels, scan)), names


def _segments(path: Path, dataset: Dataset) -> dict[str, int]:
    """Name to number of the segments; number 0 of a label map describes the background."""
    described = items(dataset, "SegmentSequence")
    named = numbered(path, described, "SegmentNumber", "SegmentLabel")
    names = {name: number for name, number in unique_names(named).items() if number > 0}
    if not names:
        raise FileFormatError(f"{path}: describes no segment; export the segmentation again")
    return names


def _labels(path: Path, dataset: Dataset, values: Mapping[int, int], scan: Volume | None) -> Volume:
    """The segments with these numbers as labels with these values, on the file's own grid."""
    from highdicom.seg import Segmentation

    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2")
    try:
        if syntax in _PYLIBJPEG:
            dataset.decompress(decoding_plugin="pylibjpeg")
        _tell_step(dataset, scan)
        segmentation = Segmentation.from_dataset(dataset, copy=False)
        grid = segmentation.get_volume_geometry(rtol=SAME_PLACE_VOXELS)
    except Exception as error:  # what reads damaged bytes may fail in any way
        raise _unreadable(path, error) from error
    if grid is None and scan is not None:
        columns, rows = (integer(dataset, name) or 0 for name in ("Columns", "Rows"))
        raise _off_grid(path, columns, rows, scan)
    if grid is None:
        msg = f"{path}: its frames are not evenly spaced or differ in direction or pixel spacing"
        raise GeometryError(f"{msg}, so they form no grid; place them on their scan")
    labels = np.zeros(grid.spatial_shape, label_dtype(max(values.values())))
    try:
        for array, table in _parts(path, segmentation, values):
            found = table.astype(labels.dtype)[array]
            clash = (found > 0) & (labels > 0) & (labels != found)
            if clash.any():
                raise _overlap(path, labels[clash][0], found[clash][0], values)
            np.copyto(labels, found, where=found > 0)
    except LeansegError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    # From (slice, row, column), slices counted against the normal, to (i, j, k) along it.
    affine = LPS_TO_RAS @ grid.flip_spatial(0).affine[:, [2, 1, 0, 3]]
    return Volume(labels[::-1].transpose(2, 1, 0), affine, path)


def _unreadable(path: Path, error: Exception) -> FileFormatError:
    lacking = error.name if isinstance(error, AttributeError) else None
    why = f"lacks {lacking}" if lacking else f"cannot be read by highdicom ({type(error).__name__})"
    return FileFormatError(f"{path}: {why}; export the segmentation again")


def _overlap(path: Path, one: int, other: int, values: Mapping[int, int]) -> GeometryError:
    numbers = [next(n for n, value in values.items() if value == label) for label in (one, other)]
    msg = f"{path}: segments {numbers[0]} and {numbers[1]} overlap, and a voxel has one label; "
    return GeometryError(f"{msg}choose segments that do not, by name")


def _parts(
    path: Path, segmentation: Any, values: Mapping[int, int]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """What is read at once, (slice, row, column), and the label for each number there."""
    options = {"rtol": SAME_PLACE_VOXELS, "rescale_fractional": False}
    kind = segmentation.SegmentationType
    table = np.zeros(65536, np.uint16)
    if kind != "FRACTIONAL":
        table[list(values)] = list(values.values())
        numbers_read = None if kind == "LABELMAP" else sorted(values)
        try:
            array = segmentation.get_volume(
                segment_numbers=numbers_read, combine_segments=True, **options
            ).array
        except RuntimeError:  # segments overlap
            array = None
        if array is not None:
            if kind == "LABELMAP":
                _check_numbers(path, segmentation, np.unique(array))
            yield array, table
            return
    half = math.ceil(segmentation.MaximumFractionalValue / 2) if kind == "FRACTIONAL" else 1
    for number in sorted(values):
        table = np.zeros(256, np.uint16)
        table[half:] = values[number]
        array = segmentation.get_volume(segment_numbers=[number], **options).array
        yield array[..., 0], table


def _check_numbers(path: Path, segmentation: Any, found: NDArray[Any]) -> None:
    """Check that a label map holds background and segments that it describes alone."""
    known = {0, integer(segmentation, "PixelPaddingValue"), *segmentation.segment_numbers}
    unknown = [int(number) for number in found if int(number) not in known]
    if unknown:
        msg = f"{path}: has voxels of segment {unknown[0]}, which it does not describe; export the "
        raise FileFormatError(f"{msg}segmentation again")


def _tell_step(dataset: Dataset, scan: Volume | None) -> None:
    """Declare the scan's step as that between slices, which a file may omit or have wrong.

    Slices without any segment are left out of files, so the step does not show everywhere.
    """
    if scan is None:
        return
    for shared in items(dataset, "SharedFunctionalGroupsSequence"):
        for orientation in items(shared, "PlaneOrientationSequence"):
            axes = np.array(numbers(orientation, "ImageOrientationPatient")).reshape(2, 3)
            normal = LPS_TO_RAS[:3, :3] @ np.cross(*axes)
            for measures in items(shared, "PixelMeasuresSequence"):
                step_mm = np.abs(normal @ scan.affine[:3, :3]).max()
                measures.SpacingBetweenSlices = float(step_mm)


def _placed(labels: Volume, scan: Volume) -> Volume:
    """Labels on the grid of their scan, of which they may fill a part."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    path = labels.path
    to_scan = np.linalg.inv(scan.affine) @ labels.affine
    turned = io_orientation(to_scan)
    array = apply_orientation(labels.array, turned)
    to_scan = to_scan @ inv_ornt_aff(turned, labels.shape)
    first = np.rint(to_scan[:3, 3]).astype(int)
    off = to_scan - np.eye(4)
    off[:3, 3] -= first
    # The corner where all that is off adds up.
    farthest = np.abs(off[:3, :3]) @ (np.array(array.shape) - 1) + np.abs(off[:3, 3])
    if farthest.max() > SAME_PLACE_VOXELS:
        raise _off_grid(path, *labels.shape[:2], scan)
    result = np.zeros(scan.shape, array.dtype)
    box = bounding_box(array)
    if box is not None:
        start, stop = first + box.start, first + box.stop
        if (start < 0).any() or (stop > scan.shape).any():
            msg = f"{path}: has voxels outside of the scan; give the scan it was made on"
            raise GeometryError(msg)
        result[tuple(map(slice, start, stop))] = array[box.slices]
    return Volume(result, scan.affine, path, scan.header)


def _off_grid(path: Path | None, columns: int, rows: int, scan: Volume) -> GeometryError:
    msg = f"{path}: its voxels are not those of the scan's grid (it has frames of {columns} x "
    msg += f"{rows} pixels, the scan {scan.shape} voxels); give the scan it was made on, or "
    return GeometryError(f"{msg}resample it")
