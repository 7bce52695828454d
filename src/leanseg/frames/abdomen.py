"""The abdomen, found in a CT scan: the box that 3-D networks of paper 004 look at.

They were trained on boxes that Gibson et al. (IEEE TMI 37, 2018) drew by hand: in-plane the rib
cage and abdominal cavity, from the upper end of liver and spleen to the lower end of liver and
kidneys. Here the body, the lungs and the ribs give a first box, in which the network itself finds
those organs; their ends give the final one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from leanseg.errors import DatasetError
from leanseg.frames.view import ScanView, coarse_voxels
from leanseg.plan import Stage
from leanseg.volumes import Box

Mask = NDArray[np.bool_]

# Landmarks are looked for on a grid this coarse: they are large, and ten times faster so.
_STEP_MM = 3.0
_BODY_HU, _LUNG_HU, _BONE_HU = -300.0, -500.0, 180.0
# The lungs' share of the body's cross-section above which a slice lies above the liver's dome.
_LUNG_SHARE = 0.25
# Height of the first box; the boxes drawn by hand are 160 to 220 mm high.
_HEIGHT_MM, _ABOVE_DOME_MM = 200.0, 15.0
# How far the belly's wall lies under the front of the body.
_SKIN_MM = 15.0
# Organs whose ends are the box's ends, by words of their names.
_UPPER, _LOWER = ("liver", "spleen"), ("liver", "kidney")
_MARGIN_MM = 5.0
# A box lower than this was not found around these organs.
_SMALLEST_MM = 60.0


@dataclass(frozen=True)
class _Coarse:
    """A scan on a coarse grid, its axes turned to (left-right, back-front, feet-head).

    Attributes:
        hounsfield: Subsampled voxels, axes in that order, each running either way.
        steps: How many voxels of the scan one of the grid is, along its axes.
        spacing_mm: Of the coarse grid.
        order: Axis of the scan for each of these axes.
        back_first: Whether the second axis runs from back to front.
        head_first: Whether the third axis runs from head to feet.
    """

    hounsfield: NDArray[Any]
    steps: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    order: tuple[int, int, int]
    back_first: bool
    head_first: bool


Look = Callable[[Box], NDArray[np.float32]]


def find_abdomen(view: ScanView, stage: Stage, look: Look | None) -> Box:
    """The abdomen's box.

    Args:
        view: The scan in the stage's orientation; its first channel in HU.
        stage: The network that will see the box; its labels name the organs.
        look: One pass of that network over a box: probabilities (output, i, j, k). None where it
            does not see a region at once; the first box is then the result.

    Returns:
        The box, in voxels of the view.

    Raises:
        DatasetError: If there is no body in the scan.
    """
    codes = stage.frame.orientation
    whole = Box((0, 0, 0), view.shape)
    try:
        first = _landmark_box(_coarse(view, codes), whole)
    except DatasetError as error:
        raise DatasetError(f"{view.name}: {error}") from error
    if look is None:
        return first
    return _around_organs(first, look(first), view.spacing_mm, stage, whole)


def _coarse(view: ScanView, codes: str) -> _Coarse:
    order = tuple(
        next(axis for axis, code in enumerate(codes) if code in pair) for pair in ("LR", "PA", "IS")
    )
    x, y, z = order
    steps = [max(1, round(_STEP_MM / mm)) for mm in view.spacing_mm]
    small = coarse_voxels(view, steps).transpose(order)
    spacing = [mm * step for mm, step in zip(view.spacing_mm, steps, strict=True)]
    return _Coarse(
        small,
        (steps[x], steps[y], steps[z]),
        (spacing[x], spacing[y], spacing[z]),
        (x, y, z),
        codes[y] == "A",
        codes[z] == "I",
    )


def _body(hounsfield: NDArray[Any]) -> Mask:
    """The body without table and arms, holes filled slice by slice.

    Raises:
        DatasetError: If nothing in the scan is denser than fat.
    """
    tissue = ndimage.binary_opening(hounsfield > _BODY_HU, iterations=2)
    components, count = ndimage.label(tissue)
    if count == 0:
        msg = "there is no body in this scan (nothing denser than fat); check that it is CT in HU"
        raise DatasetError(msg)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    body = components == sizes.argmax()
    for k in range(body.shape[2]):
        body[:, :, k] = ndimage.binary_fill_holes(body[:, :, k])
    return np.asarray(body)


def _landmark_box(coarse: _Coarse, whole: Box) -> Box:
    """Rib cage in-plane, belly included; from above the liver's dome downwards."""
    body = _body(coarse.hounsfield)
    low, high = _feet_to_head(coarse, body)
    slab = body[:, :, low:high]
    bone = ndimage.binary_erosion(slab) & (coarse.hounsfield[:, :, low:high] > _BONE_HU)
    across, front = _extent(bone if bone.any() else slab, 0), _extent(slab, 1)
    if bone.any():
        # The back ends with the ribs; in front the belly reaches further than they do.
        behind = _extent(bone, 1)
        skin = _SKIN_MM / coarse.spacing_mm[1]
        belly = front[1] - skin if coarse.back_first else front[0] + skin
        front = (behind[0], belly) if coarse.back_first else (belly, behind[1])
    return _scan_box(coarse, (across, front, (float(low), float(high))), whole)


def _extent(mask: Mask, axis: int) -> tuple[float, float]:
    """Where all but a hundredth of a mask begins and ends along an axis.

    Raises:
        DatasetError: If the mask is empty.
    """
    places = np.nonzero(mask)[axis]
    if not places.size:
        raise DatasetError(
            "there is no body where the abdomen should be; check the scan and the spacing in its "
            "header"
        )
    low, high = np.percentile(places, [0.5, 99.5])
    return float(low), float(high) + 1


def _feet_to_head(coarse: _Coarse, body: Mask) -> tuple[int, int]:
    """First and last slice (excluded) of the first box, in storage order."""
    cross_section = body.sum(axis=(0, 1))
    air = ndimage.binary_opening(body & (coarse.hounsfield < _LUNG_HU))
    share = air.sum(axis=(0, 1)) / np.maximum(cross_section, 1)
    n_slices, step = len(share), coarse.spacing_mm[2]
    from_feet = share[::-1] if coarse.head_first else share
    above = np.flatnonzero(from_feet > _LUNG_SHARE)
    top = n_slices if not above.size else min(n_slices, int(above[0] + 1 + _ABOVE_DOME_MM / step))
    bottom = max(0, round(top - _HEIGHT_MM / step))
    if coarse.head_first:
        return n_slices - top, n_slices - bottom
    return bottom, top


def _scan_box(coarse: _Coarse, extents: Sequence[tuple[float, float]], whole: Box) -> Box:
    """A box on the coarse grid, in voxels of the scan."""
    start, stop = list(whole.start), list(whole.stop)
    for axis, step, (low, high) in zip(coarse.order, coarse.steps, extents, strict=True):
        first = min(max(int(low * step), 0), whole.stop[axis] - 1)
        start[axis] = first
        stop[axis] = min(max(round(high * step), first + 1), whole.stop[axis])
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _around_organs(
    box: Box,
    probabilities: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    stage: Stage,
    whole: Box,
) -> Box:
    """The first box, its upper and lower end moved to those of the organs found in it.

    An end at which an organ is cut by the box is moved outwards by a fifth of the box instead.
    """
    codes = stage.frame.orientation
    has_background = stage.n_outputs > len(stage.labels)
    if has_background:
        # Plane by plane: numpy counts in 8 bytes a voxel.
        planes = np.moveaxis(probabilities, 1, 0)
        classes = np.stack([plane.argmax(axis=0).astype(np.uint16) for plane in planes])
    axis = next(axis for axis, code in enumerate(codes) if code in "IS")
    head_first = codes[axis] == "I"
    ends = {}
    for name, words in (("upper", _UPPER), ("lower", _LOWER)):
        wanted = [
            number
            for number, label in enumerate(stage.labels, start=1)
            if any(word in label for word in words)
        ]
        if has_background:
            mask = np.isin(np.arange(len(probabilities)), wanted)[classes]
        else:
            found = probabilities[[number - 1 for number in wanted]] > stage.threshold
            mask = found.any(axis=0)
        ends[name] = _organ_extent(mask, axis)
    upper, lower = ends["upper"], ends["lower"]
    if upper is None or lower is None:
        return box
    n, length = probabilities.shape[1 + axis], box.stop[axis] - box.start[axis]
    first, last = (upper[0], lower[1]) if head_first else (lower[0], upper[1])
    margin = _MARGIN_MM / spacing_mm[axis]
    start = box.start[axis] + first / n * length - margin
    stop = box.start[axis] + last / n * length + margin
    if first == 0:
        start = box.start[axis] - length / 5
    if last == n:
        stop = box.start[axis] + length * 1.2
    start, stop = max(0, round(start)), min(whole.stop[axis], round(stop))
    if (stop - start) * spacing_mm[axis] < _SMALLEST_MM:
        return box
    starts, stops = list(box.start), list(box.stop)
    starts[axis], stops[axis] = start, stop
    return Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))


def _organ_extent(mask: Mask, axis: int) -> tuple[int, int] | None:
    """Where the largest component of each organ begins and ends along an axis."""
    components, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    others = tuple(other for other in range(3) if other != axis)
    # Everything that is not a speck beside the largest piece.
    found = (sizes > sizes.max() / 20)[components].any(axis=others)
    places = np.flatnonzero(found)
    return int(places[0]), int(places[-1]) + 1
