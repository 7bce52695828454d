"""The largest connected component of a label, slice by slice: no map of components exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from leanseg.frames.classes import where_any

_Numbers = NDArray[np.int64]


def keep_largest_component(
    labels: NDArray[Any], values: Sequence[int], instead: int = 0, share: float = 1.0
) -> None:
    """Of a label leave only the largest component, and those nearly as large, in place.

    Components touch by faces (6-neighbourhood). Of equally large ones the one stays whose first
    voxel comes first in index order.

    Args:
        labels: Of three axes, unsigned integers, in any storage order.
        values: The label's: its own, and those of the regions that lie inside it.
        instead: The value that its other components get.
        share: Components of at least this share of the largest one's voxels stay too; at 1 none.
    """
    slices = np.flatnonzero([where_any(section, values).any() for section in labels])
    if slices.size:
        _keep_largest(labels[slices[0] : slices[-1] + 1], values, instead, share)


def _keep_largest(labels: NDArray[Any], values: Sequence[int], instead: int, share: float) -> None:
    """A label's components are pieces of slices, joined where pieces touch in the next slice.

    Pieces are numbered slice by slice, the same each time, so that nothing but one slice's and
    the sizes of all has to be kept.
    """
    sizes: list[NDArray[np.intp]] = []
    joined: list[_Numbers] = [np.zeros((2, 0), dtype=np.int64)]
    count = count_before = 0
    before: NDArray[Any] | None = None
    for section in labels:
        pieces, n = _pieces(section, values)
        sizes.append(np.bincount(pieces.ravel(), minlength=n + 1)[1:])
        if before is not None:
            pairs = _touching(before, pieces, n + 1)
            joined.append(pairs + np.array([[count_before - 1], [count - 1]]))
        before, count_before, count = pieces, count, count + n
    one, other = np.concatenate(joined, axis=1)
    graph = sparse.coo_array((np.ones(len(one), dtype=bool), (one, other)), (count, count))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    volumes = np.bincount(component, weights=np.concatenate(sizes))
    # Pieces are numbered in index order, so that the first of the largest comes first.
    kept = component == component[int(np.argmax(volumes[component]))]
    if share < 1:
        kept = volumes[component] >= share * volumes.max()
    if not kept.all():
        _clear(labels, values, kept, instead)


def _pieces(section: NDArray[Any], values: Sequence[int]) -> tuple[NDArray[Any], int]:
    """Numbers of a slice's pieces from 1, in index order, and how many there are."""
    pieces, n = ndimage.label(np.ascontiguousarray(where_any(section, values)))
    return pieces, int(n)


def _touching(before: NDArray[Any], pieces: NDArray[Any], n: int) -> _Numbers:
    """Pairs of pieces, below `n` in the second slice, that lie on one another: (2, pairs)."""
    both = (before > 0) & (pieces > 0)
    codes = before[both].astype(np.int64) * n + pieces[both]
    # Neighbours mostly tell the same, and sorting is what takes long.
    codes = np.unique(codes[np.flatnonzero(np.diff(codes, prepend=-1))])
    return np.stack([codes // n, codes % n])


def _clear(
    labels: NDArray[Any], values: Sequence[int], kept: NDArray[np.bool_], instead: int
) -> None:
    count = 0
    for section in labels:
        pieces, n = _pieces(section, values)
        lost = np.concatenate([[False], ~kept[count : count + n]])
        section[lost[pieces]] = instead
        count += n
