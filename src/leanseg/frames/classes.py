"""Label files as classes of a stage, in a frame's orientation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.plan import Stage, label_dtype
from leanseg.volumes import Volume, nearest_indices, reoriented_view


def class_lookup(labels: Sequence[str], label_values: Mapping[str, Sequence[int]]) -> NDArray[Any]:
    """Table from a label file's value to the class: 0 background, n + 1 for labels[n].

    Args:
        labels: A stage's foreground labels.
        label_values: For each, the values in the label files that are merged into it.

    Returns:
        Array indexed by file value; its last entry stands for every value past its end.
    """
    largest = max((value for values in label_values.values() for value in values), default=0)
    table = np.zeros(largest + 2, dtype=label_dtype(len(labels)))
    for number, name in enumerate(labels, start=1):
        table[list(label_values[name])] = number
    return table


def class_map(
    label: Volume, stage: Stage, label_values: Mapping[str, Sequence[int]]
) -> NDArray[Any]:
    """A label volume as classes (k, i, j) in the frame's orientation, in its own resolution.

    Values that no class names become background.
    """
    table = class_lookup(stage.labels, label_values)
    turned = reoriented_view(label.array, label.orientation, stage.frame.orientation)
    view = np.moveaxis(turned, 2, 0)
    classes = np.empty(view.shape, dtype=table.dtype)
    # Slice by slice: numpy widens indices to 8 bytes each.
    for section, out in zip(view, classes, strict=True):
        np.take(table, section, out=out, mode="clip")
    return classes


def resize_classes(classes: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """A class map (k, i, j) on a frame of another shape (i, j, k), by nearest neighbours."""
    i, j, k = (
        nearest_indices(n, wanted)
        for n, wanted in zip((*classes.shape[1:], classes.shape[0]), shape, strict=True)
    )
    return np.ascontiguousarray(classes[k][:, i][:, :, j])
