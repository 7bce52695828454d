"""Several datasets as one: labels are matched by name, never by value.

What one dataset does not know of, its cases do not annotate: a liver from here and a pancreas
from there train together without either being taken for background.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.labels import label_key
from leanseg.datasets.sources import LabelPart
from leanseg.errors import DatasetError

# Names become file names.
_UNSAFE = re.compile(r"[^\w.-]+")
_GENERIC_CHANNEL = re.compile(r"channel_\d+")


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
    counts = Counter(case.name for dataset in datasets for case in dataset.cases)
    cases: dict[str, Case] = {}
    for number, dataset in enumerate(datasets, start=1):
        own = {name: names[label_key(name)] for name in dataset.labels}
        values = {value: labels[own[name]] for name, value in dataset.labels.items()}
        for case in dataset.cases:
            name = case.name
            if counts[name] > 1:
                name = f"{_UNSAFE.sub('_', dataset.name)}_{name}"
            if name in cases or (name != case.name and name in counts):
                name = f"{name}_{number}"
            cases[name] = replace(_merged(case, dataset.name, own, values), name=name)
    return Dataset(
        [cases[name] for name in sorted(cases)],
        labels,
        channels,
        name=" + ".join(dataset.name for dataset in datasets),
        root=datasets[0].root,
        layout=" + ".join(dict.fromkeys(dataset.layout for dataset in datasets)),
    )


def _merged(case: Case, dataset: str, own: Mapping[str, str], values: Mapping[int, int]) -> Case:
    """A case whose labels have other names and values: `own` and `values` give the new ones."""
    known = own.values() if case.annotated is None else map(own.__getitem__, case.annotated)
    metadata = {**case.metadata, "dataset": dataset}
    if "patient" in metadata:
        metadata["patient"] = f"{dataset}/{metadata['patient']}"
    parts = tuple(_renumbered(part, values) for part in case.label_parts)
    return replace(case, label_parts=parts, annotated=frozenset(known), metadata=metadata)


def _common_channels(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The channels' names; a generic name, as the plain layout gives, agrees with any."""
    common: list[str] = []
    n_channels = {len(dataset.channels) for dataset in datasets}
    for names in zip(*(dataset.channels for dataset in datasets), strict=False):
        told = {name.casefold(): name for name in names if not _GENERIC_CHANNEL.fullmatch(name)}
        if len(told) > 1 or len(n_channels) > 1:
            listed = " and ".join(f"{d.root} ({', '.join(d.channels)})" for d in datasets)
            msg = f"only datasets with the same channels train together: {listed} differ"
            raise DatasetError(f"{msg}; leave one out")
        common += list(told.values()) or [names[0]]
    return tuple(common)


def _renumbered(part: LabelPart, values: Mapping[int, int]) -> LabelPart:
    if part.value is not None:
        return replace(part, value=values[part.value])
    if part.values is not None:
        kept = {old: values[new] for old, new in part.values.items() if new in values}
        return replace(part, values=kept)
    return replace(part, values=dict(values))
