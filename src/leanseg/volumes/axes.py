"""Which way the axes of a grid run in the patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CODES = (("L", "R"), ("P", "A"), ("I", "S"))


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
