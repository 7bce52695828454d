"""Labels by name: in any spelling, found in label maps, unified where cases number them apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np

from leanseg.datasets.load import as_label_map, require_few_values
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError


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


IGNORE = "ignore"


def is_ignore(label: str) -> bool:
    """Whether a label, by its name, marks voxels of which nothing is known, as in nnU-Net."""
    return label_key(label) == (IGNORE,)


def without_ignore(labels: Mapping[str, int]) -> dict[str, int]:
    """The labels but the one called "ignore"."""
    return {name: value for name, value in labels.items() if not is_ignore(name)}


class FoundLabels(Mapping[str, int]):
    """Names for the values in label maps, which are read when somebody first asks.

    Whoever only wants the scans, to predict them, neither waits for the label maps nor stumbles
    over a damaged one. The values are called label_1, label_2, ...
    """

    def __init__(self, maps: Iterable[VolumeSource]) -> None:
        self._maps = tuple(maps)

    @cached_property
    def _found(self) -> dict[str, int]:
        values: set[int] = set()
        for source in self._maps:
            label = as_label_map(read_source(source))
            require_few_values(label)
            values.update(np.unique(label.array).tolist())
        values.discard(0)
        if self._maps and not values:
            folder = self._maps[0].path.parent
            raise DatasetError(f"{folder}: the label maps hold nothing but background; check them")
        return {f"label_{value}": value for value in sorted(values)}

    def __getitem__(self, name: str) -> int:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def unified(listings: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """One value for every name that several listings of labels use.

    A name keeps the first value that a listing gives it, unless another name has that value
    already: then it gets the next one that no listing uses.

    Returns:
        Name to value, in ascending value.
    """
    listings = list(listings)
    free = max((value for listing in listings for value in listing.values()), default=0) + 1
    labels: dict[str, int] = {}
    for listing in listings:
        for name, value in listing.items():
            if name in labels:
                continue
            if value in labels.values():
                value, free = free, free + 1
            labels[name] = value
    return dict(sorted(labels.items(), key=lambda item: item[1]))
