"""Several datasets as one: labels are matched by name, never by value.

What one dataset does not know of, its cases do not annotate: a liver from here and a pancreas
from there train together without either being taken for background.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from leanseg.datasets.case import Dataset, LabelPart
from leanseg.errors import DatasetError

# Names become file names.
_UNSAFE = re.compile(r"[^\w.-]+")
_GENERIC_CHANNEL = re.compile(r"channel_\d+")


def label_key(name: str) -> tuple[str, ...]:
    """What makes two spellings one label: its words, in any order, case and punctuation.

    "left kidney", "kidney_left" and "Kidney-Left" are the same.
    """
    return tuple(sorted(re.split(r"[\W_]+", name.casefold().strip())))


def find_label(name: str, labels: Iterable[str]) -> str | None:
    """The label among `labels` that `name` means, in any spelling; None where there is none."""
    candidates = list(labels)
    if name in candidates:
        return name
    return next((label for label in candidates if label_key(label) == label_key(name)), None)


def merge_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """One dataset with the cases of all; its label values are numbered anew.

    Args:
        datasets: At least one; the first spelling of a label's name is kept.

    Returns:
        The dataset. Case names that occur twice are preceded by their dataset's name, and so
        are patients, since two sites may number theirs alike.

    Raises:
        DatasetError: If the datasets differ in their channels.
    """
    if len(datasets) == 1:
        return datasets[0]
    channels = _common_channels(datasets)
    names: dict[tuple[str, ...], str] = {}
    for dataset in datasets:
        for label in dataset.labels:
            names.setdefault(label_key(label), label)
    labels = {label: value for value, label in enumerate(names.values(), start=1)}
    renamed = _unique_names(datasets)
    cases = []
    for number, dataset in enumerate(datasets):
        own = {name: names[label_key(name)] for name in dataset.labels}
        values = {value: labels[own[name]] for name, value in dataset.labels.items()}
        for case in dataset.cases:
            known = own.values() if case.annotated is None else map(own.__getitem__, case.annotated)
            metadata = dict(case.metadata, dataset=dataset.name)
            if "patient" in metadata:
                metadata["patient"] = f"{dataset.name}/{metadata['patient']}"
            cases.append(
                replace(
                    case,
                    name=renamed[number, case.name],
                    label_parts=tuple(_renumbered(part, values) for part in case.label_parts),
                    annotated=frozenset(known),
                    metadata=metadata,
                )
            )
    return Dataset(
        name=" + ".join(dataset.name for dataset in datasets),
        root=datasets[0].root,
        layout=" + ".join(dict.fromkeys(dataset.layout for dataset in datasets)),
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        labels=labels,
        channels=channels,
    )


def _common_channels(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The channels' names; a generic name, as the plain layout gives, agrees with any."""
    first, *others = datasets
    common = list(first.channels)
    for other in others:
        fits = len(common) == len(other.channels)
        for index, name in enumerate(other.channels if fits else ()):
            if _GENERIC_CHANNEL.fullmatch(common[index]):
                common[index] = name
            fits &= bool(_GENERIC_CHANNEL.fullmatch(name)) or (
                name.casefold() == common[index].casefold()
            )
        if not fits:
            msg = (
                f"{first.root} has the channels {', '.join(first.channels)} and {other.root} has "
                f"{', '.join(other.channels)}; only datasets with the same channels train together"
            )
            raise DatasetError(msg)
    return tuple(common)


def _unique_names(datasets: Sequence[Dataset]) -> dict[tuple[int, str], str]:
    """(dataset's number, case name) to a name that no other case has."""
    all_names = [case.name for dataset in datasets for case in dataset.cases]
    found: dict[tuple[int, str], str] = {}
    for number, dataset in enumerate(datasets):
        for case in dataset.cases:
            name = case.name
            if all_names.count(name) > 1:
                name = _UNSAFE.sub("_", dataset.name) + "_" + name
            if name in found.values():
                name = f"{name}_{number + 1}"
            found[number, case.name] = name
    return found


def _renumbered(part: LabelPart, values: Mapping[int, int]) -> LabelPart:
    if part.value is not None:
        return replace(part, value=values[part.value])
    if part.values is not None:
        kept = {old: values[new] for old, new in part.values.items() if new in values}
        return replace(part, values=kept)
    return replace(part, values=dict(values))
