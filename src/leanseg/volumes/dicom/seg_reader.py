"""DICOM Segmentation objects in, as label maps, through highdicom."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes.axes import LPS_TO_RAS
from leanseg.volumes.dicom.files import require_package
from leanseg.volumes.dicom.objects import chosen, cut_short, open_object, unique_names
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
    segments: Mapping[str, int] | None = None,
) -> tuple[Volume, dict[str, int]]:
    """Read a DICOM SEG file: BINARY, FRACTIONAL (from one half on) or LABELMAP.

    Where segments overlap, the one with the higher number lies on top.

    Args:
        path: The file, or a folder or zip file that holds one.
        scan: Gives the grid; slices that the file leaves out are background there. Without it
            the grid is the file's own, from its first to its last slice.
        segments: Which segments to read and as which label values, by name; those that the file
            lacks are passed over. None for all, by segment number.

    Returns:
        The labels, (i, j, k) uint8 or uint16, and the name of each value; without a scan, i is
        the column, j the row and k the slice.

    Raises:
        FileFormatError: If it is not a DICOM SEG file, or cut short.
        GeometryError: If its voxels are not those of the scan's grid, or form no grid.
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
        labels = _labels(path, dataset, values, scan)
    return (labels if scan is None else _placed(labels, scan)), names


def _segments(path: Path, dataset: Dataset) -> dict[str, int]:
    """Name to number of the segments; number 0 of a label map describes the background."""
    described = items(dataset, "SegmentSequence")
    named = {integer(one, "SegmentNumber") or 0: text(one, "SegmentLabel") for one in described}
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
        raise cut_short(path) from error
    if grid is None and scan is not None:
        columns, rows = (integer(dataset, name) or 0 for name in ("Columns", "Rows"))
        raise _off_grid(path, columns, rows, scan)
    if grid is None:
        msg = f"{path}: its frames are not evenly spaced or differ in direction or pixel spacing"
        raise GeometryError(f"{msg}, so they form no grid; place them on their scan")
    labels = np.zeros(grid.spatial_shape, label_dtype(max(values.values())))
    try:
        for array, table in _parts(segmentation, values):
            found = table.astype(labels.dtype)[array]
            np.copyto(labels, found, where=found > 0)
    except Exception as error:
        raise cut_short(path) from error
    # From (slice, row, column), slices counted against the normal, to (i, j, k) along it.
    affine = LPS_TO_RAS @ grid.flip_spatial(0).affine[:, [2, 1, 0, 3]]
    return Volume(labels[::-1].transpose(2, 1, 0), affine, path)


def _parts(
    segmentation: Any, values: Mapping[int, int]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """What is read at once, (slice, row, column), and the label for each number that stands there.

    Later parts lie on top.
    """
    options = {"rtol": SAME_PLACE_VOXELS, "rescale_fractional": False}
    table = np.zeros(65536, np.uint16)
    if segmentation.SegmentationType != "FRACTIONAL":
        table[list(values)] = list(values.values())
        is_label_map = segmentation.SegmentationType == "LABELMAP"
        numbers_read = None if is_label_map else sorted(values)
        options |= {"combine_segments": True, "skip_overlap_checks": True}
        yield segmentation.get_volume(segment_numbers=numbers_read, **options).array, table
        return
    for number in sorted(values):
        table[math.ceil(segmentation.MaximumFractionalValue / 2) :] = values[number]
        array = segmentation.get_volume(segment_numbers=[number], **options).array
        yield array[..., 0], table


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
