"""Label files as classes of a stage, in a frame's orientation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import RecipeError
from leanseg.plan import Stage, label_dtype
from leanseg.volumes import Volume, nearest_indices, reoriented_view


def ignored_class(labels: Sequence[str]) -> int:
    """The value of ignored voxels in class maps, which are unsigned: the one after the classes."""
    return len(labels) + 1


def containment(label_values: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Which class lies inside which, from the values that are merged into each.

    Args:
        label_values: Values in label files by class; a class without any lies in none.

    Returns:
        For each class that lies inside others, the smallest of these.

    Raises:
        RecipeError: If two classes have the same values, or share some while each has others.
    """
    sets = {name: frozenset(values) for name, values in label_values.items()}
    inside: dict[str, str] = {}
    # From the largest to the smallest, so that a value's owner is the innermost class so far.
    owner: dict[int, str] = {}
    for name in sorted(sets, key=lambda name: -len(sets[name])):
        for outer in [owner[value] for value in sorted(sets[name]) if value in owner]:
            if not sets[name] < sets[outer]:
                raise RecipeError(
                    f"the value {min(sets[name] & sets[outer])} belongs to both {outer!r} and "
                    f"{name!r}, neither of which lies inside the other; take it out of one, or "
                    "give one of them all values of the other and more"
                )
            inside[name] = outer
        owner |= dict.fromkeys(sets[name], name)
    return {name: inside[name] for name in sets if name in inside}


def class_lookup(
    labels: Sequence[str],
    label_values: Mapping[str, Sequence[int]],
    ignored_values: Sequence[int] = (),
) -> NDArray[Any]:
    """Table from a label file's value to the class: 0 background, n + 1 for labels[n].

    A value of several classes, which lie inside one another, becomes the innermost. Ignored
    voxels become the class after the last, `ignored_class`.

    Args:
        labels: A stage's foreground labels.
        label_values: For each, the values in the label files that are merged into it.
        ignored_values: The values in the label files that mark ignored voxels.

    Returns:
        Array indexed by file value; its last entry stands for every value past its end.

    Raises:
        RecipeError: If classes share values and none lies inside the other.
    """
    containment(label_values)
    named = [*label_values.values(), ignored_values]
    largest = max((value for values in named for value in values), default=0)
    table = np.zeros(largest + 2, dtype=label_dtype(len(labels) + bool(ignored_values)))
    if ignored_values:
        table[list(ignored_values)] = ignored_class(labels)
    numbered = list(enumerate(labels, start=1))
    for number, name in sorted(numbered, key=lambda each: -len(set(label_values[each[1]]))):
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

    Raises:
        RecipeError: If classes share values, and the stage does not say that one lies inside the
            other.
    """
    members = stage.label_values
    for inner, outer in containment(label_values).items():
        if stage.labels.index(inner) + 1 not in members[outer]:
            raise RecipeError(
                f"the values of {inner!r} are all among those of {outer!r}, but stage "
                f"{stage.name!r} takes the two for classes that exclude one another; say that one "
                "is inside the other, or take the values out of one"
            )
    table = class_lookup(stage.labels, label_values, ignored_values)
    turned = reoriented_view(label.array, label.orientation, stage.frame.orientation)
    view = np.moveaxis(turned, 2, 0)
    classes = np.empty(view.shape, dtype=table.dtype)
    # Slice by slice: numpy widens indices to 8 bytes each.
    for section, out in zip(view, classes, strict=True):
        np.take(table, section, out=out, mode="clip")
    return classes


def where_any(classes: NDArray[Any], values: Sequence[int]) -> NDArray[np.bool_]:
    """Where a class map holds one of the classes that belong to a label."""
    # Of one value many times faster, and most labels have one.
    return classes == values[0] if len(values) == 1 else np.isin(classes, values)


def resize_classes(classes: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """A class map (k, i, j) on a frame of another shape (i, j, k), by nearest neighbours."""
    i, j, k = (
        nearest_indices(n, wanted)
        for n, wanted in zip((*classes.shape[1:], classes.shape[0]), shape, strict=True)
    )
    return np.ascontiguousarray(classes[k][:, i][:, :, j])
