"""Which values of a label map form which label: given as text, or found in maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from leanseg.errors import LeansegError

LabelValues = dict[str, tuple[int, ...]]


def normalise_labels(labels: Mapping[str, int | Sequence[int]]) -> LabelValues:
    """Label names to the values that are merged into each.

    Values may occur in several labels, as in nested tumour regions.

    Raises:
        LeansegError: If there is no label, or a value is not a positive integer.
    """
    if not labels:
        raise LeansegError("no labels to score; name at least one, such as liver=1")
    result: LabelValues = {}
    for name, given in labels.items():
        values = np.atleast_1d(given)
        if not values.size or values.dtype.kind not in "iu" or values.min() < 1:
            raise LeansegError(
                f"label {name!r} has the value {given!r}; label values are integers from 1 up "
                "(0 is background)"
            )
        result[name] = tuple(sorted(set(values.tolist())))
    return result


def require_not_ignored(labels: LabelValues, ignored_values: Iterable[int]) -> None:
    """Refuse ignored values that are a label's, and those that no label map has.

    Raises:
        LeansegError: If there is one.
    """
    for value in ignored_values:
        if value < 1:
            msg = f"the ignored value is {value}; give a whole number from 1 on (0 is background)"
            raise LeansegError(msg)
        name = next((name for name, values in labels.items() if value in values), None)
        if name is not None:
            raise LeansegError(
                f"the value {value} is ignored and also belongs to the label {name!r}; take it out "
                "of one of the two"
            )


def parse_labels(text: str) -> LabelValues:
    """Read labels such as "liver=1,tumour=2+3", where + merges values.

    Raises:
        LeansegError: If the text has another form or names a label twice.
    """
    labels: LabelValues = {}
    for part in text.split(","):
        name, equals, values = (piece.strip() for piece in part.partition("="))
        numbers = [value.strip() for value in values.split("+")]
        if not name or not equals or not all(n.isascii() and n.isdigit() for n in numbers):
            msg = f"labels {text!r}: {part.strip()!r} is not of the form name=1 or name=1+2"
            raise LeansegError(msg)
        if name in labels:
            msg = f"labels {text!r} names {name!r} twice; merge values with +, as in {name}=1+2"
            raise LeansegError(msg)
        labels[name] = tuple(int(number) for number in numbers)
    return normalise_labels(labels)
