"""Surface Dice from surface elements (Nikolov et al., 2018, arXiv:1809.04430).

Between every 2 x 2 x 2 voxel centres lies a cell. Marching cubes puts facets through the
midpoints of those cell edges whose ends differ; a cell with facets is a surface element, it sits
at the cell's centre and weighs as much as its facets' area in mm2.

`facets.csv` lists the facets: for each cell code, the corners of its triangles in halves of the
cell's edges. They enclose the smaller part of the cell's corners; two such corners across a face
are cut off one by one, and a loop of five or six points, which is not flat, is cut into the
triangles of the largest area. The areas agree with the public `surface-distance` for all 256 cells.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from leanseg.evaluation.surface import (
    Axes,
    Mask,
    nearest_distances,
    positions_mm,
)

# Spacings stored in single precision are off by parts in 1e8; that must not decide whether a
# surface at exactly the tolerance is within it.
_TOLERANCE_SLACK = 1e-6


def cell_codes(mask: Mask) -> NDArray[np.uint8]:
    """One byte per cell, whose bit 4 x + 2 y + z is the voxel at corner (x, y, z).

    Args:
        mask: Shape (i, j, k).

    Returns:
        Shape (i - 1, j - 1, k - 1).
    """
    one, two, four = (np.uint8(bits) for bits in (1, 2, 4))
    corners = mask.view(np.uint8)
    edges = corners[:, :, :-1] | (corners[:, :, 1:] << one)
    faces = edges[:, :-1] | (edges[:, 1:] << two)
    codes: NDArray[np.uint8] = faces[:-1] | (faces[1:] << four)
    return codes


def cell_areas_mm2(axes: Axes) -> NDArray[np.float64]:
    """Facet area of each of the 256 cell codes, shape (256,), in mm2."""
    codes, corners = _facets()
    a, b, c = np.moveaxis(corners @ axes.T, 1, 0)
    normals = np.cross(b - a, c - a)
    triangles = np.sqrt((normals[:, None] @ normals[..., None])[:, 0, 0]) / 2
    areas = np.zeros(256)
    np.add.at(areas, codes, triangles)
    # Foreground and background swap without moving the facets.
    return areas + areas[::-1]


@cache
def _facets() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cell codes below 128, and the corners (n, 3, 3) of a triangle of each, cell edges being 1."""
    table = files("leanseg.evaluation").joinpath("facets.csv").read_text(encoding="utf-8")
    rows = np.loadtxt(table.splitlines(), dtype=np.int64, delimiter=",", skiprows=1)
    return rows[:, 0], rows[:, 1:].reshape(-1, 3, 3) / 2


def surface_dice_between(
    prediction: Mask, reference: Mask, axes: Axes, tolerance_mm: float
) -> float | None:
    """Share of both surfaces that lies within a tolerance of the other.

    Args:
        prediction: Shape (i, j, k), as `crop_to_surfaces` has cut it.
        reference: The same.
        axes: As in `distances_between`.
        tolerance_mm: Distance at which two surfaces still agree, in mm.

    Returns:
        From 0 to 1; 0 where only one mask has a surface, None where neither has.
    """
    codes = cell_codes(prediction), cell_codes(reference)
    # Codes 0 and 255 have no facets; subtracting 1 wraps 0 to 255, so one comparison does.
    surfaces = [(code - np.uint8(1)) < 254 for code in codes]
    shared = surfaces[0] & surfaces[1]
    alone = [surface & ~shared for surface in surfaces]
    areas = cell_areas_mm2(axes)
    total = sum(areas[code[surface]].sum() for code, surface in zip(codes, surfaces, strict=True))
    if total == 0:
        return None
    shared_mm = positions_mm(shared, axes)
    alone_mm = [positions_mm(marked, axes) for marked in alone]
    limit = tolerance_mm * (1 + _TOLERANCE_SLACK)
    within = float(sum(areas[code[shared]].sum() for code in codes))
    for own, other in ((0, 1), (1, 0)):
        targets = np.concatenate([shared_mm, alone_mm[other]])
        if len(targets) == 0:
            continue
        # The search itself excludes its limit, so it is given a little more.
        distances = nearest_distances(alone_mm[own], targets, limit_mm=limit * (1 + 1e-9) + 1e-12)
        within += float(areas[codes[own][alone[own]]][distances <= limit].sum())
    return min(within / float(total), 1.0)
