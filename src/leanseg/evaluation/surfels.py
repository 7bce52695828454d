"""Surface Dice from surface elements (Nikolov et al., 2018, arXiv:1809.04430).

Between every 2 x 2 x 2 voxel centres lies a cell. Marching cubes puts facets through the
midpoints of those cell edges whose ends differ; a cell with facets is a surface element, it sits
at the cell's centre and weighs as much as its facets' area in mm2. The area table is derived
here from the geometry; it agrees with the public `surface-distance` for all 256 cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from leanseg.evaluation.surface import (
    Mask,
    ScanBorder,
    Spacing,
    crop_to_surfaces,
    nearest_distances,
    positions_mm,
)

_Point = tuple[float, float, float]
_Triangle = tuple[int, int, int]

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


def cell_areas_mm2(spacing_mm: Spacing) -> NDArray[np.float64]:
    """Facet area of each of the 256 cell codes, shape (256,), in mm2."""
    areas = np.zeros(256)
    scale = np.array(spacing_mm)
    for code in range(256):
        # Foreground and background swap without moving the facets.
        for corners in _facets(min(code, 255 - code)):
            a, b, c = corners * scale
            areas[code] += np.linalg.norm(np.cross(b - a, c - a)) / 2
    return areas


@lru_cache(maxsize=256)
def _facets(code: int) -> tuple[NDArray[np.float64], ...]:
    """Triangles (3, 3) of a cell with at most as many foreground corners as background."""
    corners = list(product((0, 1), repeat=3))
    bits = {corner: bool(code >> n & 1) for n, corner in enumerate(corners)}
    # `min(code, 255 - code)` may still have more than four; the smaller part is kept apart.
    inside = sum(bits.values()) <= 4
    filled = {corner: bit is inside for corner, bit in bits.items()}
    triangles: list[NDArray[np.float64]] = []
    for loop in _loops(filled):
        points = np.array(loop)
        # A loop of five or six points is not flat. Of its triangulations take the largest on the
        # unit cube: it is unique up to symmetry and gives the usual marching-cubes facets.
        best = max(_triangulations(tuple(range(len(loop)))), key=lambda t: _area(points, t))
        triangles += [points[list(triangle)] for triangle in best]
    return tuple(triangles)


def _area(points: NDArray[np.float64], triangles: tuple[_Triangle, ...]) -> float:
    a, b, c = (points[[triangle[n] for triangle in triangles]] for n in range(3))
    # Rounded, so that equal areas tie and the first stays the choice on every machine.
    return round(float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()), 9)


def _loops(filled: dict[tuple[int, ...], bool]) -> Iterator[list[_Point]]:
    """Closed polygons around the filled corners, through the midpoints of cell edges."""
    neighbours: dict[_Point, list[_Point]] = {}
    for axis, side in product(range(3), (0, 1)):
        for start, end in _face_segments(filled, axis, side):
            neighbours.setdefault(start, []).append(end)
            neighbours.setdefault(end, []).append(start)
    while neighbours:
        point = next(iter(neighbours))
        loop = []
        while point in neighbours:
            loop.append(point)
            ahead = neighbours.pop(point)
            point = next((other for other in ahead if other in neighbours), point)
        yield loop


def _face_segments(
    filled: dict[tuple[int, ...], bool], axis: int, side: int
) -> list[tuple[_Point, _Point]]:
    """Where the surface crosses one face of the cell: no, one or two segments."""
    ring = []
    for u, v in ((0, 0), (0, 1), (1, 1), (1, 0)):
        corner = [u, v]
        corner.insert(axis, side)
        ring.append(tuple(corner))
    crossings: list[_Point] = []
    for a, b in pairwise([*ring, ring[0]]):
        if filled[a] != filled[b]:
            x, y, z = ((p + q) / 2 for p, q in zip(a, b, strict=True))
            crossings.append((x, y, z))
    if len(crossings) == 4 and not filled[ring[0]]:
        # Two filled corners across the face are cut off one by one, never joined.
        return [(crossings[0], crossings[1]), (crossings[2], crossings[3])]
    if len(crossings) == 4:
        return [(crossings[3], crossings[0]), (crossings[1], crossings[2])]
    return [(crossings[0], crossings[1])] if crossings else []


def _triangulations(polygon: tuple[int, ...]) -> list[tuple[_Triangle, ...]]:
    """All ways to cut a polygon, given by its vertex numbers, into triangles."""
    if len(polygon) < 3:
        return [()]
    first, last = polygon[0], polygon[-1]
    return [
        (*left, (first, polygon[tip], last), *right)
        for tip in range(1, len(polygon) - 1)
        for left in _triangulations(polygon[: tip + 1])
        for right in _triangulations(polygon[tip:])
    ]


def surface_dice(
    prediction: Mask,
    reference: Mask,
    spacing_mm: Spacing,
    tolerance_mm: float,
    scan_border: ScanBorder = "surface",
) -> float | None:
    """Share of both surfaces that lies within a tolerance of the other.

    Args:
        prediction: Shape (i, j, k).
        reference: The same shape.
        spacing_mm: Distance between voxel centres along the three axes.
        tolerance_mm: Distance at which two surfaces still agree, in mm.
        scan_border: As in `surface_distances`.

    Returns:
        From 0 to 1; 0 where only one mask has a surface, None where neither has.
    """
    crops = crop_to_surfaces(prediction, reference, scan_border)
    return None if crops is None else surface_dice_between(*crops, spacing_mm, tolerance_mm)


def surface_dice_between(
    prediction: Mask, reference: Mask, spacing_mm: Spacing, tolerance_mm: float
) -> float | None:
    """`surface_dice` of two masks that `crop_to_surfaces` has cut."""
    codes = cell_codes(prediction), cell_codes(reference)
    # Codes 0 and 255 have no facets; subtracting 1 wraps 0 to 255, so one comparison does.
    surfaces = [(code - np.uint8(1)) < 254 for code in codes]
    shared = surfaces[0] & surfaces[1]
    alone = [surface & ~shared for surface in surfaces]
    areas = cell_areas_mm2(spacing_mm)
    total = sum(areas[code[surface]].sum() for code, surface in zip(codes, surfaces, strict=True))
    if total == 0:
        return None
    shared_mm = positions_mm(shared, spacing_mm)
    alone_mm = [positions_mm(marked, spacing_mm) for marked in alone]
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
