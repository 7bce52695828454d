"""DICOM RT Structure Sets in: contours filled on the grid of their scan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes.axes import LPS_TO_RAS
from leanseg.volumes.dicom.contours import fill, inside_and_on, united
from leanseg.volumes.dicom.files import MisplacedError, UnreadableError, named
from leanseg.volumes.dicom.objects import chosen, numbers_by_name, open_object, require_frame_of
from leanseg.volumes.dicom.series import CONTOURS
from leanseg.volumes.dicom.values import integer, items, numbers, text
from leanseg.volumes.volume import Volume, label_dtype

if TYPE_CHECKING:
    from pydicom import Dataset

# Contours by what they mean (PS3.3, C.8.8.6.3): areas, areas of which coinciding parts cancel, and
# what encloses nothing.
_AREAS, _XOR = ("CLOSED_PLANAR", "INTERPOLATED_PLANAR"), "CLOSEDPLANAR_XOR"
_OPEN = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
# Contours further than this from the nearest slice, in slice steps, lie between two.
_BETWEEN_STEPS = 0.4
# Contours of one structure that share a slice lie in one plane, to this part of a step.
_ONE_PLANE_STEPS = 0.1
# A contour's points lie in one slice to this part of a step.
_FLAT_STEPS = 0.5
_FARTHEST_MM = 1e6


# A contour's kind and points: (points, 3), or (points, 2) within a slice, in voxel indices.
_Contour = tuple[str, NDArray[np.float64]]
_Contours = dict[str, list[_Contour]]  # by name of the structure


def read_rtstruct(
    path: str | Path,
    scan: Volume,
    rois: Mapping[str, int] | int | None = None,
) -> tuple[Volume, dict[str, int]]:
    """Read an RT Structure Set as labels on the grid of its scan.

    A voxel belongs to a structure if its centre lies within one of the structure's contours in
    that slice, or on one: CLOSED_PLANAR and INTERPOLATED_PLANAR are united, but for what is
    clearly a hole (see `united`), and of CLOSEDPLANAR_XOR an odd number counts. A contour beside
    the plane of a slice counts for the nearest slice; parts outside of the scan are left out.
    What is left out, and holes, are said in the volume's notes. A structure without contours has no
    voxels.

    Args:
        path: The file, or a folder or zip file that holds one.
        scan: The scan that the contours were drawn on, in any orientation.
        rois: Which structures to read and as which label values, by name; those that the file
            lacks are passed over. A number takes all as that label. None for all, numbered from
            1 in order of their ROI numbers.

    Returns:
        The labels, (i, j, k) uint8 or uint16, and the name of each value.

    Raises:
        FileFormatError: If it is not a structure set, or cut short, or has no contours, or a
            structure that is asked for consists of points and open contours alone.
        GeometryError: If contours lie between slices or aslant of them, or all outside, or in
            another frame of reference, or structures overlap.
        LeansegError: If it has none of the structures asked for.
    """
    path = Path(path)
    with named(path):
        dataset = open_object(path, CONTOURS).header
        described = items(dataset, "StructureSetROISequence")
        present = _structures(described, items(dataset, "ROIContourSequence"))
        default = {name: value for value, name in enumerate(present, 1)}
        values, names = chosen(present, default if rois is None else rois)
        name_of = {number: name for name, number in present.items() if number in values}
        for structure in described:
            if integer(structure, "ROINumber") in values:
                require_frame_of(scan, text(structure, "ReferencedFrameOfReferenceUID"))
        contours, left_out = _contours(dataset, scan, name_of)
        for name in name_of.values():
            if name not in contours and rois is not None and left_out[name]:
                msg = f"{name} has no closed contours but {', '.join(left_out[name])}"
                raise UnreadableError(msg, "leave it out, or draw it as areas")
        notes = [
            f"{name} has {n} contours left out ({kind})"
            for name, kinds in left_out.items()
            for kind, n in Counter(kinds).items()
        ]
        value_of = {name: values[number] for number, name in name_of.items()}
        labels = _drawn(contours, scan, value_of, notes)
    notes += [f"{name} has no contours" for name in value_of if name not in contours]
    return Volume(labels, scan.affine, path, scan.header, tuple(notes)), names


def _structures(described: Sequence[Dataset], drawn: Sequence[Dataset]) -> dict[str, int]:
    """Name to ROI number of the structures, in ascending order of their numbers."""
    if not described or not drawn:
        raise UnreadableError("has no contours")
    present = numbers_by_name(described, "ROINumber", "ROIName")
    for outline in drawn:
        number = integer(outline, "ReferencedROINumber")
        if number not in present.values() and items(outline, "ContourSequence"):
            msg = f"has contours of a structure (ReferencedROINumber {number}) that it does not "
            raise UnreadableError(f"{msg}describe")
    return present


def _contours(
    dataset: Dataset, scan: Volume, name_of: Mapping[int, str]
) -> tuple[_Contours, dict[str, list[str]]]:
    """The closed contours of some ROI numbers, and the kinds of those that enclose nothing."""
    inverse = np.linalg.inv(scan.affine)
    turned = LPS_TO_RAS[:3, :3] @ inverse[:3, :3].T
    found: _Contours = defaultdict(list)
    left_out: dict[str, list[str]] = defaultdict(list)
    for outline in items(dataset, "ROIContourSequence"):
        name = name_of.get(integer(outline, "ReferencedROINumber") or 0)
        for contour in items(outline, "ContourSequence") if name is not None else ():
            kind, points = _points(contour, str(name))
            if kind in _OPEN or len(points) < 3:
                left_out[str(name)].append(kind if kind in _OPEN else "fewer than three points")
                continue
            found[str(name)].append((kind, points @ turned + inverse[:3, 3]))
    return found, left_out


def _points(contour: Dataset, name: str) -> tuple[str, NDArray[np.float64]]:
    """Kind and points of a contour, (points, 3) in LPS mm."""
    kind = text(contour, "ContourGeometricType")
    data = np.array(numbers(contour, "ContourData"))
    declared = integer(contour, "NumberOfContourPoints")
    fault = ""
    if kind not in (*_AREAS, _XOR, *_OPEN):
        fault = f"ContourGeometricType {kind[:64] or '(none)'}, which is no kind that DICOM knows"
    elif not len(data) or len(data) % 3 or declared not in (None, len(data) // 3):
        fault = f"{len(data)} numbers as ContourData for NumberOfContourPoints {declared}"
    elif not (np.abs(data) < _FARTHEST_MM).all():
        fault = "ContourData that are no places in a patient"
    if fault:
        raise UnreadableError(f"a contour of {name} has {fault}")
    return kind, data.reshape(-1, 3)


def _drawn(
    contours: _Contours, scan: Volume, value_of: Mapping[str, int], notes: list[str]
) -> NDArray[np.unsignedinteger]:
    """The contours filled on the grid of the scan; adds to the notes."""
    labels = np.zeros(scan.shape, dtype=label_dtype(max(value_of.values())))
    axis = _slice_axis(contours)
    slices = np.moveaxis(labels, axis, 0)
    in_plane = [other for other in range(3) if other != axis]
    for name in (name for name in value_of if name in contours):
        by_slice = _by_slice(contours[name], axis, scan)
        inside = {k: here for k, here in by_slice.items() if 0 <= k < len(slices)}
        if len(inside) < len(by_slice):
            notes.append(
                f"{name} has contours in {len(by_slice) - len(inside)} slices off the scan"
            )
        holes = 0
        for k, here in inside.items():
            flat = [(kind, points[:, in_plane]) for kind, points in here]
            holes += _draw(slices[k], flat, name, value_of)
        if holes:
            notes.append(f"{name} has {holes} contours within others, read as holes")
    if contours and not labels.any():
        raise MisplacedError("all of its contours lie outside of the scan")
    return labels


def _slice_axis(contours: _Contours) -> int:
    """The axis of the scan along which every contour is flat; 2 where there is no contour."""
    every = [points for outlines in contours.values() for _, points in outlines]
    if not every:
        return 2
    spread = np.array([np.ptp(points, axis=0) for points in every]).max(axis=0)
    axis = int(np.argmin(spread))
    if spread[axis] > _FLAT_STEPS:
        raise MisplacedError("contours lie aslant of the scan's slices")
    return axis


def _by_slice(outlines: Sequence[_Contour], axis: int, scan: Volume) -> dict[int, list[_Contour]]:
    """The contours of one structure by the slice nearest to each."""
    found: dict[int, list[_Contour]] = defaultdict(list)
    places: dict[int, list[float]] = defaultdict(list)
    for outline in outlines:
        place = float(outline[1][:, axis].mean())
        found[round(place)].append(outline)
        places[round(place)].append(place)
    step_mm = scan.spacing_mm[axis]
    apart = max(abs(place - k) for k, here in places.items() for place in here)
    several = max(max(here) - min(here) for here in places.values())
    if apart > _BETWEEN_STEPS or several > _ONE_PLANE_STEPS:
        msg = f"contours lie between the scan's slices, up to {apart * step_mm:.3g} mm from the "
        raise MisplacedError(f"{msg}nearest")
    return found


def _draw(
    labelled: NDArray[np.unsignedinteger],
    outlines: Sequence[_Contour],
    name: str,
    value_of: Mapping[str, int],
) -> int:
    """Fill the contours of a structure in a slice; how many of them are holes."""
    every = np.concatenate([points for _, points in outlines])
    first = np.clip(np.floor(every.min(axis=0)), 0, labelled.shape).astype(int)
    after = np.clip(np.ceil(every.max(axis=0)) + 1, 0, labelled.shape).astype(int)
    if (after <= first).any():
        return 0
    part = labelled[first[0] : after[0], first[1] : after[1]]
    by_kind: dict[str, list[NDArray[np.float64]]] = {kind: [] for kind in (*_AREAS, _XOR)}
    for kind, points in outlines:
        by_kind[kind].append(points - first)
    mask = fill(by_kind[_XOR], part.shape)
    n_holes = 0
    for kind in _AREAS:
        more, holes = united(by_kind[kind], part.shape)
        mask, n_holes = mask | more, n_holes + holes
    value = value_of[name]
    # Structures may touch: a voxel whose centre lies on a contour is not within both.
    _, edge = inside_and_on([points - first for _, points in outlines], part.shape)
    taken = (part > 0) & (part != value)
    clash = taken & mask & ~edge
    if clash.any():
        other = next(n for n, v in value_of.items() if v == part[clash][0])
        msg = f"{other} and {name} overlap, and a voxel has one label"
        raise MisplacedError(msg, "choose structures that do not, by name")
    part[mask & ~taken] = value
    return n_holes
