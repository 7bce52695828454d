"""The largest connected component of each label, slice by slice: no map of components exists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Mask = NDArray[np.bool_]


def keep_largest_components(labels: NDArray[Any], n_labels: int) -> None:
    """Of each label from 1 to `n_labels` leave only the largest component, in place.

    Components touch by faces (6-neighbourhood). Of equally large ones the one stays whose first
    voxel comes first in index order.

    Args:
        labels: Of three axes, unsigned integers, in any storage order.
        n_labels: The last label.
    """
    for label in range(1, n_labels + 1):
        filled = [k for k, section in enumerate(labels) if (section == label).any()]
        if filled:
            _keep_largest(labels[filled[0] : filled[-1] + 1], label)


def _keep_largest(labels: NDArray[Any], label: int) -> None:
    """A label's components are pieces of slices, joined where pieces touch in the next slice.

    Pieces are numbered slice by slice, the same each time, so that nothing but one slice's and
    the sizes of all has to be kept.
    """
    sizes: list[NDArray[np.intp]] = [np.zeros(1, dtype=np.intp)]
    joined: list[NDArray[np.intp]] = []
    count = 0
    before = np.zeros(labels.shape[1:], dtype=np.intp)
    for section in labels:
        pieces, n = ndimage.label(section == label)
        sizes.append(np.bincount(pieces.ravel(), minlength=n + 1)[1:])
        numbers = np.where(pieces > 0, pieces + count, 0)
        touching = (before > 0) & (numbers > 0)
        joined.append(np.unique(np.stack([before[touching], numbers[touching]]), axis=1))
        count, before = count + n, numbers
    one, other = np.concatenate(joined, axis=1)
    graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), (count + 1, count + 1))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    volumes = np.bincount(component, weights=np.concatenate(sizes))
    # Numbers ascend in index order, so that the first of the largest comes first.
    largest = component[int(np.argmax(volumes[component]))]
    kept = component == largest
    if kept[1:].all():
        return
    count = 0
    for section in labels:
        pieces, n = ndimage.label(section == label)
        section[(pieces > 0) & ~kept[np.where(pieces > 0, pieces + count, 0)]] = 0
        count += n
