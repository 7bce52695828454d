"""The geometry of a stack: slice order, step, missing slices and tilt, from positions alone.

Slices are ordered along the normal (row direction x column direction). The step is measured
between positions; SliceThickness says how thick a slice is, not how far it lies from the next.

A tilted gantry moves every slice along its plane against the one before. Slices stay parallel,
so each is shifted within its plane, by linear interpolation, until the way from slice to slice
is the normal. Spacing within slices stays, and so does the first slice; the grid grows so that
nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError
from leanseg.volumes.axes import LPS_TO_RAS
from leanseg.volumes.dicom.frames import Frame

# How far a slice may lie from its place on the even grid: headers round positions to 0.1 mm.
TOLERANCE_MM, TOLERANCE_OF_STEP = 0.1, 0.02
# Two frames closer than this lie in the same place.
SAME_PLACE_MM = 0.01
# Direction cosines that differ by less are the same direction, rounded.
SAME_DIRECTION = 1e-4
# Unit length of the direction cosines, and their right angle, which some devices round to 3 digits.
_UNIT_TOLERANCE, _RIGHT_ANGLE_TOLERANCE = 1e-2, 2e-3
# Beyond this many pixels between first and last slice, the slices are sheared.
_LARGEST_DRIFT_PIXELS = 0.5
# Gantries tilt by up to 30 degrees; more is no tilt but a mistake.
_LARGEST_TILT_DEGREES = 45.0
# With more slices missing than this share of those there, nothing is a regular grid.
_LARGEST_MISSING_SHARE = 0.5
_LARGEST_MM = 1e5
_LARGEST_SCALE = 1e20
_ROUNDING = 1e-6  # of a pixel


@dataclass(frozen=True, eq=False, slots=True)
class Stack:
    """Frames on a regular grid.

    Attributes:
        frames: In slice order.
        places: Index k of each frame on the grid; with missing slices some are skipped.
        affine: (4, 4) from (column, row, slice) to LPS mm; sheared where the slices are.
        tilt_degrees: Angle between the slices' normal and the way from slice to slice, 0 where
            it is no more than rounding.
        deviation_mm: Furthest that a slice lies from its place on the grid.
    """

    frames: tuple[Frame, ...]
    places: tuple[int, ...]
    affine: NDArray[np.float64]
    tilt_degrees: float
    deviation_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices as stored, those missing included."""
        columns, rows = self.frames[0].file.size
        return columns, rows, self.places[-1] + 1

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices k without a frame."""
        return tuple(sorted(set(range(self.places[-1] + 1)) - set(self.places)))

    @property
    def missing_names(self) -> tuple[str, ...]:
        """Those slices, such as "slice 4 (z = -12.5 mm)"."""
        origin, step = self.affine[:3, 3], self.affine[:3, 2]
        return tuple(
            f"slice {k + 1} ({position_name(origin + k * step, step)})" for k in self.missing
        )

    @property
    def affine_ras(self) -> NDArray[np.float64]:
        """(4, 4) from (column, row, slice) to RAS+ mm."""
        return np.asarray(LPS_TO_RAS @ self.affine, dtype=np.float64)

    @property
    def grid(self) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
        """Shape, and affine to RAS+ mm, of the volume that reading gives: upright if tilted."""
        if self.tilt_degrees:
            return upright_grid(self.shape, self.affine_ras)
        return self.shape, self.affine_ras


def position_name(
    position: Sequence[float] | NDArray[np.float64], along: NDArray[np.float64]
) -> str:
    """A position by its coordinate along the patient axis that `along` follows most."""
    axis = int(np.argmax(np.abs(along)))
    return f"{'xyz'[axis]} = {position[axis]:.6g} mm"


def check_frame(frame: Frame) -> None:
    """Check that a frame has a place in the world, and values, that make sense.

    Raises:
        GeometryError: Naming the file and the element.
    """
    axes = np.array(frame.axes).reshape(2, -1) if len(frame.axes) == 6 else np.zeros((2, 3))
    off = np.abs(axes @ axes.T - np.eye(2))
    right_angled = np.diag(off).max() < _UNIT_TOLERANCE and off[0, 1] < _RIGHT_ANGLE_TOLERANCE
    is_sound = {
        "ImagePositionPatient": _are_lengths(frame.position, 3),
        "ImageOrientationPatient": _are_lengths(frame.axes, 6) and right_angled,
        "PixelSpacing": _are_lengths(frame.spacing, 2) and min(frame.spacing) > 1e-4,
        "RescaleSlope": 0 < abs(frame.slope) < _LARGEST_SCALE,
        "RescaleIntercept": abs(frame.intercept) < _LARGEST_SCALE,
    }
    for keyword, sound in is_sound.items():
        if not sound:
            msg = f"{frame.name}: its {keyword} is missing or makes no sense"
            raise GeometryError(f"{msg}; export the series again")


def _are_lengths(values: Sequence[float], count: int) -> bool:
    return len(values) == count and all(abs(value) < _LARGEST_MM for value in values)


def axes_of(frame: Frame) -> NDArray[np.float64]:
    """(3, 2) unit vectors, LPS: where the column index grows, where the row index grows."""
    # Directions have length 1 but for the digits of the header; spacings are the true lengths.
    axes = np.array(frame.axes).reshape(2, 3)
    return np.stack([axis / np.linalg.norm(axis) for axis in axes], axis=1)


def normal_of(frame: Frame) -> NDArray[np.float64]:
    """Unit vector along row x column, LPS."""
    normal = np.cross(frame.axes[:3], frame.axes[3:])
    return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def heights(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """How far each frame lies along the normal of the first: (n,), mm."""
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    return np.asarray(positions @ normal_of(frames[0]), dtype=np.float64)


def same_directions(one: Frame, other: Frame) -> bool:
    """Whether two frames are parallel and turned alike."""
    return bool(np.abs(np.subtract(one.axes, other.axes)).max() < SAME_DIRECTION)


def stacked(frames: Sequence[Frame], name: str) -> Stack:
    """The regular grid of frames that are parallel, of one size, and each in another place.

    Args:
        frames: At least two, in any order.
        name: Of the series, for messages.

    Raises:
        GeometryError: If they are not evenly spaced, whether or not slices are missing.
    """
    if len(frames) < 2:
        msg = f"{name}: has one slice alone, which is no volume; choose another phase or series"
        raise GeometryError(msg)
    height = heights(frames)
    order = np.argsort(height, kind="stable")
    ordered = tuple(frames[n] for n in order)
    places = _places(height[order], ordered, name)
    positions = np.array([frame.position for frame in ordered], dtype=np.float64)
    step = (positions[-1] - positions[0]) / places[-1]
    off = np.linalg.norm(positions - (positions[0] + np.outer(places, step)), axis=1)
    if off.max() > _tolerance_mm(float(np.linalg.norm(step))):
        raise _uneven(ordered[int(off.argmax())], float(np.linalg.norm(step)), name)
    return Stack(
        frames=ordered,
        places=tuple(int(place) for place in places),
        affine=affine_of(ordered[0], step),
        tilt_degrees=_tilt(ordered[0], step, int(places[-1]), name),
        deviation_mm=float(off.max()),
    )


def _tolerance_mm(step_mm: float) -> float:
    return max(TOLERANCE_MM, TOLERANCE_OF_STEP * step_mm)


def _uneven(frame: Frame, step_mm: float, name: str) -> GeometryError:
    place = position_name(frame.position, normal_of(frame))
    return GeometryError(
        f"{name}: the slices are not evenly spaced (that of {frame.file.shown.name} at {place} "
        f"does not fit a step of {step_mm:.4g} mm); reconstruct the series with even spacing"
    )


def _places(height: NDArray[np.float64], frames: Sequence[Frame], name: str) -> NDArray[np.int64]:
    """Index of each slice on the even grid: 0, 1, 2, ... without what is missing."""
    gaps = np.diff(height)
    single = gaps[np.rint(gaps / gaps.min()) == 1]
    # One gap suffers from rounding; the mean of many does less, and all together do not.
    multiples = np.maximum(1, np.rint(gaps / single.mean()))
    step = float((height[-1] - height[0]) / multiples.sum())
    off = np.abs(gaps - multiples * step)
    n_missing = int(multiples.sum()) - len(gaps)
    if off.max() > 2 * _tolerance_mm(step):
        raise _uneven(frames[int(off.argmax())], float(single.mean()), name)
    if n_missing > _LARGEST_MISSING_SHARE * len(height):
        raise _uneven(frames[int(gaps.argmax())], float(single.mean()), name)
    return np.concatenate([[0], np.cumsum(multiples)]).astype(np.int64)


def affine_of(first: Frame, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) from (column, row, slice) to LPS mm, by the first slice and the way to the next."""
    affine = np.eye(4)
    # Row spacing, the distance between rows, stands first in DICOM.
    affine[:3, :2] = axes_of(first) * first.spacing[::-1]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return affine


def _tilt(first: Frame, step: NDArray[np.float64], n_steps: int, name: str) -> float:
    """The angle between step and normal in degrees, 0 if it stays below half a pixel."""
    along = float(step @ normal_of(first))
    aside = step - along * normal_of(first)
    if float(np.linalg.norm(aside)) * n_steps < _LARGEST_DRIFT_PIXELS * min(first.spacing):
        return 0.0
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(aside), along)))
    if degrees > _LARGEST_TILT_DEGREES:
        msg = f"{name}: the slices are displaced along one another by {degrees:.0f} degrees"
        raise GeometryError(f"{msg}, which is no gantry tilt; reconstruct the series")
    return degrees


def upright_grid(
    shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """The grid at right angles that holds all of a sheared one.

    Args:
        shape: Columns, rows and slices.
        affine: (4, 4) from (column, row, slice) to mm, its third column not along the normal.

    Returns:
        Shape and affine of the upright grid.
    """
    drift, low, high = _drift(shape, affine)
    row, column, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    straight = affine.copy()
    straight[:3, 2] = step - drift[0] * row - drift[1] * column
    straight[:3, 3] += low[0] * row + low[1] * column
    size = high - low + shape[:2]
    return (int(size[0]), int(size[1]), shape[2]), straight


def upright(
    slices: NDArray[Any],
    first: int,
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    outside: float,
) -> NDArray[Any]:
    """Resample sheared slices to an upright grid.

    Args:
        slices: (slice, row, column), some that follow one another.
        first: Index of the first of them.
        shape: Of the whole sheared grid, as `affine`: see `upright_grid`.
        affine: See there.
        outside: Value beyond the slices.

    Returns:
        The same slices of the upright grid, of the same type.
    """
    from scipy.ndimage import affine_transform

    drift, low, _ = _drift(shape, affine)
    (columns, rows, _), _ = upright_grid(shape, affine)
    result = np.empty((len(slices), rows, columns), slices.dtype)
    for n, image in enumerate(slices):
        shift = (drift * (first + n) - low)[::-1]
        # Whole pixels but for rounding are whole pixels.
        shift = np.where(np.abs(shift - np.rint(shift)) < _ROUNDING, np.rint(shift), shift)
        moved = affine_transform(
            image, np.ones(2), -shift, (rows, columns), np.float32, 1, "grid-constant", outside
        )
        result[n] = np.rint(moved) if image.dtype.kind == "i" else moved
    return result


def _drift(
    shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """How far each slice lies along its plane from the one before, in (columns, rows).

    Also the lowest and highest whole pixel that the slices drift to.
    """
    row, column, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    # Directions are only nearly at right angles, so both drifts are solved for together.
    drift = np.linalg.lstsq(np.stack([row, column], axis=1), step, rcond=None)[0]
    ends = np.stack([np.zeros(2), drift * (shape[2] - 1)])
    # Rounding must not add a line of pixels where the drift is a whole number.
    low = np.floor(ends.min(axis=0) + _ROUNDING).astype(np.int64)
    high = np.ceil(ends.max(axis=0) - _ROUNDING).astype(np.int64)
    return np.asarray(drift, dtype=np.float64), low, high
