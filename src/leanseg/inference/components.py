"""Connected components of label maps, found in two passes over the voxels.

The first pass gives every run of like voxels along the fastest axis the number of the first run
that it touches in the plane before or in the line before, or a new number, and notes which
numbers belong together. The second pass repeats the numbering, which is the same each time, and
so knows every voxel's component without a map of them: besides one plane of numbers, memory goes
with the pieces that begin anew somewhere, a few thousand in a smooth label map.

Imported only where components are asked for: compiling takes a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import njit
from numpy.typing import NDArray

from leanseg.errors import MemoryCeilingError

types: Any = numba.types
# Parent, label, size, first place and what becomes of a piece; twice, as room to grow.
_PIECE_BYTES = 48
_MOST_PIECES = 2**30


def _compiled(*signatures: Any) -> Callable[[Callable[..., Any]], Any]:
    """`njit` without the interpreter lock, kept on disk where there is a folder to write to."""

    def decorate(function: Callable[..., Any]) -> Any:
        wanted = list(signatures) or None
        try:
            return njit(wanted, cache=True, nogil=True)(function)
        except RuntimeError:  # numba found no folder for its cache
            return njit(wanted, nogil=True)(function)

    return decorate


@_compiled(types.int32(types.int32[::1], types.int32))
def _root(parent: NDArray[np.int32], piece: int) -> int:
    while parent[piece] != piece:
        parent[piece] = parent[parent[piece]]
        piece = parent[piece]
    return piece


@_compiled(types.void(types.int32[::1], types.int32, types.int32))
def _join(parent: NDArray[np.int32], one: int, other: int) -> None:
    one, other = _root(parent, one), _root(parent, other)
    # The smaller number stays, whatever the order of joining.
    if one < other:
        parent[other] = one
    else:
        parent[one] = other


@_compiled()
def _number_line(
    line: NDArray[Any],
    before: NDArray[np.int32],
    here: NDArray[np.int32],
    count: int,
    parent: NDArray[np.int32],
    value: NDArray[Any],
    size: NDArray[np.int64],
    first: NDArray[np.int64],
    lowest: int,
    highest: int,
    place: int,
    step: int,
) -> int:
    """Number one line's runs: `here` holds the plane before and becomes this one's."""
    start = 0
    while start < len(line):
        label = line[start]
        if label < lowest or label > highest:
            here[start] = 0
            start += 1
            continue
        piece = last_here = last_before = np.int32(0)
        stop = start
        while stop < len(line) and line[stop] == label:
            other = here[stop]
            if other != last_here:
                last_here = other
                if value[other] == label:
                    if piece == 0:
                        piece = other
                    elif other != piece:
                        _join(parent, piece, other)
            other = before[stop]
            if other != last_before:
                last_before = other
                if value[other] == label:
                    if piece == 0:
                        piece = other
                    elif other != piece:
                        _join(parent, piece, other)
            stop += 1
        if piece == 0:
            piece = np.int32(count)
            parent[piece], value[piece], first[piece] = piece, label, place + start * step
            count += 1
        for c in range(start, stop):
            here[c] = piece
        size[piece] += stop - start
        first[piece] = min(first[piece], place + start * step)
        start = stop
    return count


@_compiled()
def _clear_line(
    line: NDArray[Any],
    before: NDArray[np.int32],
    here: NDArray[np.int32],
    count: int,
    value: NDArray[Any],
    kept: NDArray[np.bool_],
    lowest: int,
    highest: int,
) -> int:
    """Number one line's runs once more, and set those of pieces that are not kept to 0."""
    start = 0
    while start < len(line):
        label = line[start]
        if label < lowest or label > highest:
            here[start] = 0
            start += 1
            continue
        piece = np.int32(0)
        stop = start
        while stop < len(line) and line[stop] == label:
            if piece == 0:
                if value[here[stop]] == label:
                    piece = here[stop]
                elif value[before[stop]] == label:
                    piece = before[stop]
            stop += 1
        if piece == 0:
            piece = np.int32(count)
            count += 1
        lost = not kept[piece]
        for c in range(start, stop):
            here[c] = piece
            if lost:
                line[c] = 0
        start = stop
    return count


def _choose(
    parent: NDArray[np.int32],
    value: NDArray[Any],
    size: NDArray[np.int64],
    first: NDArray[np.int64],
    kept: NDArray[np.bool_],
    best: NDArray[np.int32],
) -> None:
    """Mark the pieces of each label's largest component; `best` has an entry for every label."""
    # A component's number is the smallest of its pieces', so every sum is complete in time.
    for piece in range(len(kept) - 1, 0, -1):
        root = _root(parent, piece)
        parent[piece] = root
        if root != piece:
            size[root] += size[piece]
            first[root] = min(first[root], first[piece])
    for piece in range(1, len(kept)):
        held = best[value[piece]]
        if parent[piece] == piece and (
            size[piece] > size[held] or (size[piece] == size[held] and first[piece] < first[held])
        ):
            best[value[piece]] = piece
    for piece in range(1, len(kept)):
        kept[piece] = best[value[piece]] == parent[piece]


def _number(
    plane: NDArray[Any],
    numbers: NDArray[np.int32],
    count: int,
    pieces: tuple[NDArray[np.int32], NDArray[Any], NDArray[np.int64], NDArray[np.int64]],
    labels: tuple[int, int],
    place: int,
    steps: tuple[int, int],
) -> int:
    parent, value, size, first = pieces
    for b in range(len(plane)):
        count = _number_line(
            *(plane[b], numbers[b], numbers[b + 1], count, parent, value, size, first),
            *(labels[0], labels[1], place + b * steps[0], steps[1]),
        )
    return count


def _clear(
    plane: NDArray[Any],
    numbers: NDArray[np.int32],
    count: int,
    value: NDArray[Any],
    kept: NDArray[np.bool_],
    labels: tuple[int, int],
) -> int:
    for b in range(len(plane)):
        count = _clear_line(
            plane[b], numbers[b], numbers[b + 1], count, value, kept, labels[0], labels[1]
        )
    return count


@cache
def _kernels(dtype: np.dtype[Any]) -> tuple[Any, Any, Any]:
    """The loops for labels of one type, in any storage order: one compilation each."""
    voxel = {np.dtype(np.uint8): types.uint8, np.dtype(np.uint16): types.uint16}[dtype]
    plane, numbers, one, two = (
        types.Array(voxel, 2, "A"),
        types.int32[:, ::1],
        types.int64,
        types.UniTuple(types.int64, 2),
    )
    parent, value, places, kept = types.int32[::1], voxel[::1], types.int64[::1], types.boolean[::1]
    pieces = types.Tuple((parent, value, places, places))
    return (
        _compiled(one(plane, numbers, one, pieces, two, one, two))(_number),
        _compiled(types.void(parent, value, places, places, kept, parent))(_choose),
        _compiled(one(plane, numbers, one, value, kept, two))(_clear),
    )


def _pieces(
    view: NDArray[Any], labels: tuple[int, int], steps: Sequence[int], most: int
) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """The pieces' labels and whether each is kept; None where there are more than `most`."""
    number, choose, _ = _kernels(view.dtype)
    # Each number is overwritten by that of its neighbour in the next plane; a line of zeros
    # comes before the first.
    numbers = np.zeros((view.shape[1] + 1, view.shape[2]), dtype=np.int32)
    n_voxels = view[0].size
    types_ = (np.int32, view.dtype, np.int64, np.int64)
    pieces = tuple(np.zeros(n_voxels + 1, dtype=kind) for kind in types_)
    count = 1
    for a, plane in enumerate(view):
        if count + n_voxels > len(pieces[0]):
            # In turns, so that only one of the arrays is there twice.
            room = 2 * len(pieces[0])
            pieces = tuple(np.concatenate([p, np.zeros(room - len(p), p.dtype)]) for p in pieces)
        count = number(plane, numbers, count, pieces, labels, a * steps[0], tuple(steps[1:]))
        if count > most:
            return None
    parent, value, size, first = (piece[:count] for piece in pieces)
    kept, best = np.zeros(count, dtype=bool), np.zeros(labels[1] + 1, dtype=np.int32)
    choose(parent, value, size, first, kept, best)
    return value, kept


def keep_largest(
    labels: NDArray[Any], lowest: int, highest: int, max_bytes: int | None = None
) -> None:
    """Of each label from `lowest` to `highest` leave only the largest component, in place.

    Components touch by faces (6-neighbourhood). Of equally large ones the one stays whose first
    voxel comes first in index order, whatever the order in memory.

    Args:
        labels: Of three axes, uint8 or uint16, in any storage order.
        lowest: First label looked at, at least 1.
        highest: Last one.
        max_bytes: About how much memory the pieces may take; where all labels together need
            more, they are taken in turns. None is without limit.

    Raises:
        MemoryCeilingError: If a single label is in more pieces than that.
    """
    # Neighbours in memory lie along the last axis: an order of magnitude faster.
    order = sorted(range(3), key=lambda axis: -abs(labels.strides[axis]))
    steps = (labels.shape[1] * labels.shape[2], labels.shape[2], 1)
    view = labels.transpose(order)
    most = _MOST_PIECES
    if max_bytes is not None:
        most = min(most, max(max_bytes // _PIECE_BYTES, view[0].size))
    found = _pieces(view, (lowest, highest), [steps[axis] for axis in order], most)
    if found is not None:
        if not found[1][1:].all():
            _clear_all(view, (lowest, highest), *found)
    elif lowest < highest:
        middle = (lowest + highest) // 2
        keep_largest(labels, lowest, middle, max_bytes)
        keep_largest(labels, middle + 1, highest, max_bytes)
    else:
        msg = (
            f"label {lowest} is in more than {most} pieces, and finding the largest of them needs "
            "more memory than is allowed; allow more"
        )
        raise MemoryCeilingError(msg)


def _clear_all(
    view: NDArray[Any], labels: tuple[int, int], value: NDArray[Any], kept: NDArray[np.bool_]
) -> None:
    clear = _kernels(view.dtype)[2]
    numbers = np.zeros((view.shape[1] + 1, view.shape[2]), dtype=np.int32)
    count = 1
    for plane in view:
        count = clear(plane, numbers, count, value, kept, labels)
