"""Closed contours of a mask in a slice, and masks of closed contours.

Coordinates are voxel indices (i, j) of the slice, whole numbers at voxel centres.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Contours run along the borders between voxels, drawn this far into the mask (in voxels): so
# those of voxels that touch at a corner do not meet, the enclosed area stays that of the voxels
# to about a hundredth, and readers that round to the nearest voxel find the mask as do those
# that test voxel centres.
INSET_VOXELS = 0.01
# A voxel whose centre is this close to a contour lies on it, and belongs to it: programs that
# draw contours through the centres of the outermost voxels mean to include those.
_ON_CONTOUR_VOXELS = 1e-3

# Border edges by direction of travel with the mask on the left: +i, +j, -i, -j.
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
_LEFT = np.array([[0, 1], [-1, 0], [0, -1], [1, 0]])
_PLUS_I, _PLUS_J, _MINUS_I = 0, 1, 2


@dataclass(frozen=True)
class _Edges:
    """The border edges of a mask, each the side of one of its voxels.

    Attributes:
        pixels: (edges, 2) padded indices of the voxel whose side it is.
        turns: (edges,) 1 where the contour turns left after the edge, -1 where right, else 0.
        following: The next edge of each along the contour.
        corners: (edges, 2) where the contour turns after the edge, moved into the mask.
        ids: (direction, i, j) of a padded voxel to the number of that edge.
    """

    pixels: NDArray[np.intp]
    turns: NDArray[np.intp]
    following: NDArray[np.intp]
    corners: NDArray[np.float64]
    ids: NDArray[np.intp]


# One closed border, as edges in order of travel; the mask lies on the left.
_Loop = NDArray[np.intp]
# Holes by the edge that their keyholes meet: the point where, and the points of the hole.
_Attached = dict[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]]


def trace(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The closed contours of a mask, one for each of its parts.

    Voxels are of one part where they share a side. A hole is joined to the contour around it by
    a keyhole, two coincident lines between voxel centres, as the standard advises for
    CLOSED_PLANAR: whether a reader unites contours, takes them by even-odd rule or by winding
    number, it finds the same voxels.

    Args:
        mask: (i, j).

    Returns:
        Each contour as (points, 2), not repeating the first point at the end.
    """
    if not mask.any():
        return []
    edges = _border(mask)
    outer, holes = _loops(edges, np.pad(mask, 1))
    attached: _Attached = defaultdict(list)
    # From the last row on, so that a hole carries those hanging from it when it is joined.
    for start, hole in sorted(holes.items(), key=lambda item: -int(edges.pixels[item[0], 1])):
        meets, point = _anchor(edges, start)
        attached[meets].append((point, _points(hole, edges, attached)))
    return [_points(loop, edges, attached) - 1 for loop in outer]


def _border(mask: NDArray[np.bool_]) -> _Edges:
    padded = np.pad(mask, 1)
    # Rolled, the mask tells of the voxel on an edge's right.
    found = np.argwhere([padded & ~np.roll(padded, tuple(side), (0, 1)) for side in _LEFT])
    direction, pixel = found[:, 0], found[:, 1:]
    ids = np.full((4, *padded.shape), -1, dtype=np.intp)
    ids[tuple(found.T)] = np.arange(len(found))

    step, left = _STEPS[direction], _LEFT[direction]
    ahead, right = pixel + step, pixel + step - left
    is_ahead, is_right = padded[ahead[:, 0], ahead[:, 1]], padded[right[:, 0], right[:, 1]]
    # Where voxels meet at a corner alone, the contour stays with its own voxel.
    turn = np.where(~is_ahead, 1, np.where(is_right, -1, 0))
    next_direction = (direction + turn) % 4
    next_pixel = np.where((turn == 1)[:, None], pixel, np.where((turn == 0)[:, None], ahead, right))
    following = ids[next_direction, next_pixel[:, 0], next_pixel[:, 1]]
    heads = pixel + 0.5 * step - 0.5 * left
    corners = heads + INSET_VOXELS * (left + _LEFT[next_direction])
    return _Edges(pixel, turn, following, corners, ids)


def _loops(edges: _Edges, padded: NDArray[np.bool_]) -> tuple[list[_Loop], dict[int, _Loop]]:
    """The outer borders, and the holes by the edge above their first voxel (see `_anchor`)."""
    following = edges.following.tolist()
    seen = bytearray(len(following))
    outer: list[_Loop] = []
    holes: dict[int, _Loop] = {}
    for first in range(len(following)):
        if seen[first]:
            continue
        order: list[int] = []
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = following[edge]
        loop = np.array(order)
        if edges.turns[loop].sum() > 0:
            outer.append(loop)
        else:
            start = _top_left(edges, loop)
            holes[int(loop[start])] = np.roll(loop, -start)
    return outer, holes


def _top_left(edges: _Edges, loop: _Loop) -> int:
    """Where in a hole's border the edge is that leads to its topmost, then leftmost corner."""
    is_above = edges.ids[_MINUS_I, edges.pixels[loop, 0], edges.pixels[loop, 1]] == loop
    above = np.flatnonzero(is_above)
    i, j = edges.pixels[loop[above]].T
    return int(above[np.lexsort((i, j))[0]])


def _anchor(edges: _Edges, start: int) -> tuple[int, NDArray[np.float64]]:
    """Where the keyhole of a hole meets another border.

    From the hole's topmost left corner the line runs up (to smaller j) between two columns of
    voxels, for as long as the voxels on both sides belong to the mask.

    Args:
        edges: All border edges.
        start: The edge above the hole's topmost, leftmost voxel.

    Returns:
        The edge that the line meets, and the point.
    """
    i, j = edges.pixels[start]
    left = i - 1
    row = int(j)
    while True:
        below = edges.ids[_PLUS_I, left, row]
        if below >= 0:  # the voxel up left is outside: the line ends at its border
            y = row - 0.5 + INSET_VOXELS
            return int(below), np.array([left + 0.5 - INSET_VOXELS, y])
        beside = edges.ids[_PLUS_J, left, row - 1]
        if beside >= 0:  # the voxel up right is outside: the line ends at its corner
            return int(beside), edges.corners[beside]
        row -= 1


def _points(loop: _Loop, edges: _Edges, attached: _Attached) -> NDArray[np.float64]:
    """The corners of a border, with the holes that hang from it inserted."""
    turning = edges.turns[loop] != 0
    if not attached:
        return np.asarray(edges.corners[loop[turning]])
    pieces: list[NDArray[np.float64]] = []
    done = 0
    for place, edge in enumerate(loop.tolist()):
        for point, hole in attached.pop(edge, ()):
            pieces.append(edges.corners[loop[done:place][turning[done:place]]])
            pieces += [point[None], hole, hole[:1], point[None]]
            done = place
    pieces.append(edges.corners[loop[done:][turning[done:]]])
    points = np.concatenate(pieces)
    repeated = (points == np.roll(points, 1, axis=0)).all(axis=1)
    return np.asarray(points[~repeated], dtype=np.float64)


def united(
    contours: Sequence[NDArray[np.float64]], shape: tuple[int, int]
) -> tuple[NDArray[np.bool_], int]:
    """The voxels whose centres lie within any of some contours that mean solid areas, or on one.

    DICOM (PS3.3, C.8.8.6.3) joins the hole of such an area to it by a keyhole; yet many programs
    draw it as a contour of its own. So what lies inside another contour, a voxel away from it
    all around, is a hole in it; and what lies inside a hole is solid again. A contour that is
    there twice, or crosses another, takes nothing away.

    Args:
        contours: As in `fill`.
        shape: As in `fill`.

    Returns:
        (i, j), and the number of holes.
    """
    parts = [inside_and_on([points], shape) for points in contours]
    whole = [within | on for within, on in parts]
    inner = [within & ~on for within, on in parts]
    depths, holders = _nesting(whole, inner, shape)
    holes = [n for n, depth in depths.items() if depth % 2 and inner[n].any()]
    result = np.zeros(shape, bool)
    for n, mask in enumerate(whole):
        if depths.get(n, 0) % 2 == 0:
            cut = [inner[hole] for hole in holes if n in holders[hole]]
            result |= mask & ~np.any([np.zeros(shape, bool), *cut], axis=0)
    return result, len(holes)


def _nesting(
    whole: Sequence[NDArray[np.bool_]], inner: Sequence[NDArray[np.bool_]], shape: tuple[int, int]
) -> tuple[dict[int, int], dict[int, list[int]]]:
    """How deep contours lie within others, and in which; of those alone that meet another.

    Args:
        whole: The voxels of each contour.
        inner: Those that are not on it.
        shape: Of the slice.
    """
    from scipy.ndimage import binary_dilation

    count = np.sum([np.zeros(shape, np.intp), *whole], axis=0)
    met = [n for n, mask in enumerate(whole) if (count[mask] > 1).any()]
    depths: dict[int, int] = {}
    holders: dict[int, list[int]] = {}
    # Largest first, so that what holds a contour comes before it.
    for n in sorted(met, key=lambda n: -int(whole[n].sum())):
        around = binary_dilation(inner[n]) if inner[n].any() else whole[n]
        # In a hole anything else is solid: it need not keep away from the border.
        holders[n] = [
            m
            for m, depth in depths.items()
            if not ((whole[n] if depth % 2 else around) & ~whole[m]).any()
            and not np.array_equal(whole[m], whole[n])
        ]
        depths[n] = 1 + max((depths[m] for m in holders[n]), default=-1)
    return depths, holders


def fill(contours: Iterable[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The voxels whose centres lie within an odd number of contours, or on one.

    So a contour inside another cuts a hole, and keyholes (two coincident lines) leave no trace.

    Args:
        contours: Each (points, 2), closed from its last point to its first. What lies outside
            of the slice is left out.
        shape: Size of the slice in voxels.

    Returns:
        (i, j).
    """
    within, on = inside_and_on(contours, shape)
    return within | on


def inside_and_on(
    contours: Iterable[NDArray[np.float64]], shape: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The voxels whose centres lie within an odd number of contours, and those on one."""
    closed = [np.asarray(points, dtype=np.float64) for points in contours]
    starts = np.concatenate([*closed, np.empty((0, 2))])
    ends = np.concatenate([*(np.roll(points, -1, axis=0) for points in closed), np.empty((0, 2))])
    crossings = np.zeros((shape[0] + 1, shape[1]), dtype=np.int32)
    i, j = _crossings(starts, ends, shape[1], margin=0.0)
    # A crossing toggles all voxels from the first centre at or past it.
    first = np.clip(np.ceil(i), 0, shape[0]).astype(np.intp)
    np.add.at(crossings, (first, j), 1)
    inside = (np.cumsum(crossings[:-1], axis=0) & 1).astype(bool)
    return inside, _centres_on(shape, starts, ends)


def _crossings(
    starts: NDArray[np.float64], ends: NDArray[np.float64], n_rows: int, margin: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Where edges cross rows of voxel centres: i (float) and the row j, one for each crossing.

    An edge spans the rows from its lower end, included, to its upper end, excluded, so that a
    corner on a row counts once; with a margin both ends are included and reach further by it.
    """
    low = np.where((starts[:, 1] <= ends[:, 1])[:, None], starts, ends)
    high = np.where((starts[:, 1] <= ends[:, 1])[:, None], ends, starts)
    upward = high[:, 1] > low[:, 1]
    low, high = low[upward], high[upward]
    first = np.clip(np.ceil(low[:, 1] - margin), 0, n_rows).astype(np.intp)
    after = np.floor(high[:, 1] + margin) + 1 if margin else np.ceil(high[:, 1])
    counts = np.clip(np.clip(after, 0, n_rows).astype(np.intp) - first, 0, None)
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    part = (row - low[edge, 1]) / (high[edge, 1] - low[edge, 1])
    part = np.clip(part, 0.0, 1.0)
    return low[edge, 0] + part * (high[edge, 0] - low[edge, 0]), row


def _centres_on(
    shape: tuple[int, int], starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """The voxels whose centres lie on an edge."""
    found = np.zeros(shape, dtype=bool)
    # Steep edges meet rows at one place; flat ones are the same with i and j exchanged.
    steep = np.abs(ends[:, 1] - starts[:, 1]) >= np.abs(ends[:, 0] - starts[:, 0])
    for view, edge_starts, edge_ends in (
        (found, starts[steep], ends[steep]),
        (found.T, starts[~steep][:, ::-1], ends[~steep][:, ::-1]),
    ):
        i, j = _crossings(edge_starts, edge_ends, view.shape[1], _ON_CONTOUR_VOXELS)
        nearest = np.rint(i)
        on = (np.abs(i - nearest) <= _ON_CONTOUR_VOXELS) & (nearest >= 0)
        on &= nearest < view.shape[0]
        view[nearest[on].astype(np.intp), j[on]] = True
    return found
