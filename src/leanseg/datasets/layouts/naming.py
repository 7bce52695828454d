"""Labels by name: found in label maps, unified over cases that number them differently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from leanseg.datasets.case import LabelPart, Source
from leanseg.errors import DatasetError


class FoundLabels(Mapping[str, int]):
    """Names for the values in label maps, which are read when somebody first asks.

    Whoever only wants the scans, to predict them, neither waits for the label maps nor stumbles
    over a damaged one. The values are called label_1, label_2, ...
    """

    def __init__(self, maps: Iterable[Path]) -> None:
        self._maps = tuple(maps)

    @cached_property
    def _found(self) -> dict[str, int]:
        return _labels_in(self._maps)

    def __getitem__(self, name: str) -> int:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _labels_in(maps: tuple[Path, ...]) -> dict[str, int]:
    from leanseg.datasets.load import as_label_map
    from leanseg.volumes import read_volume

    values: set[int] = set()
    for file in maps:
        values.update(int(value) for value in np.unique(as_label_map(read_volume(file)).array))
    values.discard(0)
    if maps and not values:
        msg = f"{maps[0].parent}: the label maps hold nothing but background; check them"
        raise DatasetError(msg)
    return {f"label_{value}": value for value in sorted(values)}


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


def mapped_part(source: Source, own: Mapping[str, int], labels: Mapping[str, int]) -> LabelPart:
    """A label map whose values are a case's own, for a dataset that has others.

    Args:
        source: The label map.
        own: Name to value in that label map.
        labels: Name to value in the dataset; has all of the names.
    """
    if all(labels[name] == value for name, value in own.items()):
        return LabelPart(source)
    return LabelPart(source, values={value: labels[name] for name, value in own.items()})


def mask_parts(masks: Mapping[str, Source], labels: Mapping[str, int]) -> tuple[LabelPart, ...]:
    """Label parts from one mask per label, later ones on top.

    Args:
        masks: Name to mask, in the order in which they are laid over each other.
        labels: Name to value in the dataset; has all of the names.
    """
    return tuple(LabelPart(source, value=labels[name]) for name, source in masks.items())
