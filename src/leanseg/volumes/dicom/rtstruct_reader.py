"""DICOM RT Structure Sets in: contours filled on the grid of their scan."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes.axes import LPS_TO_RAS
from leanseg.volumes.dicom.contours import fill
from leanseg.volumes.dicom.objects import chosen, cut_short, open_object, unique_names
from leanseg.volumes.dicom.series import CONTOURS
from leanseg.volumes.dicom.values import integer, items, numbers, text
from leanseg.volumes.volume import Volume, label_dtype

if TYPE_CHECKING:
    from pydicom import Dataset

_CLOSED = frozenset(("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"))
# Contours further than this from the nearest slice, in slice steps, lie between two.
_BETWEEN_STEPS = 0.4
# Contours of one structure that share a slice lie in one plane, to this part of a step.
_ONE_PLANE_STEPS = 0.1
# A contour's points lie in one slice to this part of a step.
_FLAT_STEPS = 0.5

_Contours = list[NDArray[np.float64]]


def read_rtstruct(
    path: str | Path,
    scan: Volume,
    rois: Mapping[str, int] | None = None,
) -> tuple[Volume, dict[str, int]]:
    """Read an RT Structure Set as labels on the grid of its scan.

    A voxel belongs to a structure if its centre lies within an odd number of the structure's
    contours in that slice (so holes may be keyholes or contours of their own) or on one. A
    contour beside the plane of a slice counts for the nearest slice; parts outside of the scan
    are left out. Where structures overlap, the one with the higher number lies on top. A
    structure without contours has no voxels; points and open contours are passed over.

    Args:
        path: The file, or a folder or zip file that holds one.
        scan: The scan that the contours were drawn on, in any orientation.
        rois: Which structures to read and as which label values, by name; those that the file
            lacks are passed over. None for all, numbered from 1 in order of their ROI numbers.

    Returns:
        The labels, (i, j, k) uint8 or uint16, and the name of each value.

    Raises:
        FileFormatError: If it is not a structure set, or cut short, or has no contours.
        GeometryError: If contours lie between slices or aslant of them, or all outside.
        LeansegError: If it has none of the structures asked for.
    """
    path = Path(path)
    with warnings.catch_warnings():
        # pydicom's warnings quote values, which may name the patient.
        warnings.simplefilter("ignore")
        dataset = open_object(path, CONTOURS)
        present = _structures(path, dataset)
        numbered = {name: value for value, name in enumerate(present, 1)}
        values, named = chosen(path, present, numbered if rois is None else rois)
        contours = _contours(path, dataset, scan, values)
    labels = np.zeros(scan.shape, dtype=label_dtype(max(values.values())))
    axis = _slice_axis(path, contours)
    slices = np.moveaxis(labels, axis, 0)
    in_plane = [other for other in range(3) if other != axis]
    drawn = outside = 0
    for number in sorted(contours):
        for k, outlines in _by_slice(path, contours[number], axis, scan).items():
            drawn += 1
            if not 0 <= k < len(slices):
                outside += 1
                continue
            _draw(slices[k], [points[:, in_plane] for points in outlines], values[number])
    if drawn and (outside == drawn or not labels.any()):
        msg = f"{path}: all of its contours lie outside of the scan; give the scan it belongs to"
        raise GeometryError(msg)
    return Volume(labels, scan.affine, path, scan.header), named


def _structures(path: Path, dataset: Dataset) -> dict[str, int]:
    """Name to ROI number of the structures, in ascending order of their numbers."""
    described = items(dataset, "StructureSetROISequence")
    if not described or not items(dataset, "ROIContourSequence"):
        raise FileFormatError(f"{path}: has no contours; export the structure set again")
    named = {integer(item, "ROINumber") or 0: text(item, "ROIName") for item in described}
    return unique_names(dict(sorted(named.items())))


def _contours(
    path: Path, dataset: Dataset, scan: Volume, wanted: Collection[int]
) -> dict[int, _Contours]:
    """The closed contours of some ROI numbers, (points, 3) in voxel indices of the scan."""
    inverse = np.linalg.inv(scan.affine)
    turned = LPS_TO_RAS[:3, :3] @ inverse[:3, :3].T
    found: dict[int, _Contours] = defaultdict(list)
    for outline in items(dataset, "ROIContourSequence"):
        number = integer(outline, "ReferencedROINumber") or 0
        for contour in items(outline, "ContourSequence"):
            if number not in wanted or text(contour, "ContourGeometricType") not in _CLOSED:
                continue
            points = np.array(numbers(contour, "ContourData"))
            declared = integer(contour, "NumberOfContourPoints")
            is_whole = len(points) % 3 == 0 and declared in (None, len(points) // 3)
            if not is_whole or not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
                raise cut_short(path)
            if len(points) >= 9:  # fewer than three points enclose nothing
                found[number].append(points.reshape(-1, 3) @ turned + inverse[:3, 3])
    return found


def _slice_axis(path: Path, contours: Mapping[int, _Contours]) -> int:
    """The axis of the scan along which every contour is flat; 2 where there is no contour."""
    every = [points for outlines in contours.values() for points in outlines]
    if not every:
        return 2
    spread = np.array([np.ptp(points, axis=0) for points in every]).max(axis=0)
    axis = int(np.argmin(spread))
    if spread[axis] > _FLAT_STEPS:
        msg = f"{path}: contours lie aslant of the scan's slices; give the scan they were drawn on"
        raise GeometryError(msg)
    return axis


def _by_slice(path: Path, outlines: _Contours, axis: int, scan: Volume) -> dict[int, _Contours]:
    """The contours of one structure by the slice nearest to each."""
    found: dict[int, _Contours] = defaultdict(list)
    places: dict[int, list[float]] = defaultdict(list)
    for points in outlines:
        place = float(points[:, axis].mean())
        found[round(place)].append(points)
        places[round(place)].append(place)
    step_mm = scan.spacing_mm[axis]
    apart = max(abs(place - k) for k, here in places.items() for place in here)
    several = max(max(here) - min(here) for here in places.values())
    if apart > _BETWEEN_STEPS or several > _ONE_PLANE_STEPS:
        msg = f"{path}: contours lie between the scan's slices, up to {apart * step_mm:.3g} mm from"
        raise GeometryError(f"{msg} the nearest; give the scan they were drawn on")
    return found


def _draw(labelled: NDArray[np.unsignedinteger], outlines: _Contours, value: int) -> None:
    """Fill the contours of a structure in a slice."""
    every = np.concatenate(outlines)
    first = np.clip(np.floor(every.min(axis=0)), 0, labelled.shape).astype(int)
    after = np.clip(np.ceil(every.max(axis=0)) + 1, 0, labelled.shape).astype(int)
    if (after > first).all():
        part = labelled[first[0] : after[0], first[1] : after[1]]
        part[fill([points - first for points in outlines], part.shape)] = value
