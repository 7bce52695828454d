"""Label files as classes of a stage, in a frame's orientation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.plan import Stage, label_dtype
from leanseg.volumes import Volume, nearest_indices, reoriented_view


def ignored_class(labels: Sequence[str]) -> int:
    """The value of ignored voxels in class maps, which are unsigned: the one after the classes."""
    return len(labels) + 1


def class_lookup(
    labels: Sequence[str],
    label_values: Mapping[str, Sequence[int]],
    ignored_values: Sequence[int] = (),
) -> NDArray[Any]:
    """Table from a label file's value to the class: 0 background, n + 1 for labels[n].

    Ignored voxels become the class after the last, `ignored_class`.

    Args:
        labels: A stage's foreground labels.
        label_values: For each, the values in the label files that are merged into it.
        ignored_values: The values in the label files that mark ignored voxels.

    Returns:
        Array indexed by file value; its last entry stands for every value past its end.
    """
    named = [*label_values.values(), ignored_values]
    largest = max((value for values in named for value in values), default=0)
    table = np.zeros(largest + 2, dtype=label_dtype(len(labels) + bool(ignored_values)))
    if ignored_values:
        table[list(ignored_values)] = ignored_class(labels)
    for number, name in enumerate(labels, start=1):
        table[list(label_values[name])] = number
    return table


def class_map(
    label: Volume,
    stage: Stage,
    label_values: Mapping[str, Sequence[int]],
    ignored_values: Sequence[int] = (),
) -> NDArray[Any]:
    """A label volume as classes (k, i, j) in the frame's orientation, in its own resolution.

    Values that no class names become background, ignored ones `ignored_class`.
    """
    table = class_lookup(stage.labels, label_values, ignored_values)
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
