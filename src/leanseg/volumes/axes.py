"""Axes by anatomical direction: views of an array, and the affine that goes with them.

An orientation is three letters, the direction in which each axis increases, as in nibabel:
"LPS" has the first axis increasing to the patient's left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError

# ITK's and DICOM's world is LPS+, ours RAS+: two coordinates change sign, either way.
LPS_TO_RAS: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0])
LPS_TO_RAS.setflags(write=False)

_CODES = (("L", "R"), ("P", "A"), ("I", "S"))
_AXIS_OF = {letter: axis for axis, letters in enumerate(_CODES) for letter in letters}


def axis_codes(affine: NDArray[np.float64]) -> str:
    """Anatomical direction in which each voxel axis increases, such as "LPS".

    By nibabel's definition (`aff2axcodes`): the axes belong to those of the nearest rotation, the
    most aligned first. nibabel itself takes longer to import than many a scan to read.

    Args:
        affine: (4, 4), invertible, from voxel indices to RAS+ mm.
    """
    directions = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    left, _, right = np.linalg.svd(directions)
    rotation = left @ right
    codes = ["", "", ""]
    taken: list[int] = []
    for axis in np.argsort(-(rotation**2).max(axis=0), kind="stable"):
        column = np.abs(rotation[:, axis])
        column[taken] = -1
        world = int(column.argmax())
        taken.append(world)
        codes[axis] = _CODES[world][int(rotation[world, axis] > 0)]
    return "".join(codes)


def largest_cosine(affine: NDArray[np.float64]) -> float:
    """Of the angles between the three axes: 0 where all are right, up to 1."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def _parsed(codes: str) -> list[int]:
    axes = [_AXIS_OF.get(letter, -1) for letter in codes]
    if sorted(axes) != [0, 1, 2]:
        msg = f"orientation {codes!r} is none of the 48 codes such as 'LPS' or 'RAS'; use one"
        raise GeometryError(msg)
    return axes


def _moves(from_codes: str, to_codes: str) -> tuple[tuple[int, int, int], tuple[bool, ...]]:
    """For each axis wanted: the present axis that it is, and whether that one is reversed."""
    present, wanted = _parsed(from_codes), _parsed(to_codes)
    i, j, k = (present.index(axis) for axis in wanted)
    flips = tuple(from_codes[a] != to_codes[n] for n, a in enumerate((i, j, k)))
    return (i, j, k), flips


def reoriented_view(array: NDArray[Any], from_codes: str, to_codes: str) -> NDArray[Any]:
    """The array with its first three axes in another orientation, as a view.

    Writing into the view fills the array, so a predictor can allocate its result in the scan's
    own order and fill it in the network's.

    Args:
        array: (i, j, k, ...), later axes stay where they are.
        from_codes: The array's orientation.
        to_codes: The wanted one.

    Raises:
        GeometryError: If either is not one of the 48 codes.
    """
    axes, flips = _moves(from_codes, to_codes)
    view = array.transpose(*axes, *range(3, array.ndim))
    return view[tuple(slice(None, None, -1 if flip else None) for flip in flips)]


def axis_view(
    array: NDArray[Any], affine: NDArray[np.float64], codes: str
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The array viewed in the orientation nearest to `codes`, and the affine of that view.

    An oblique grid stays oblique: axes are exchanged and reversed, nothing is interpolated.

    Args:
        array: (i, j, k, ...).
        affine: (4, 4) from its voxel indices to RAS+ mm.
        codes: The wanted orientation.

    Returns:
        A view (no copy) and its affine, under which each voxel has the world position it had.

    Raises:
        GeometryError: If `codes` is not one of the 48.
    """
    present = axis_codes(affine)
    result = affine.copy()
    for new, (old, flip) in enumerate(zip(*_moves(present, codes), strict=True)):
        result[:3, new] = -affine[:3, old] if flip else affine[:3, old]
        if flip:
            result[:3, 3] += affine[:3, old] * (array.shape[old] - 1)
    return reoriented_view(array, present, codes), result
