"""The layout of the Medical Segmentation Decathlon: a dataset.json that lists everything.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 2022. Scans are
3-D, or 4-D with the channels named under "modality" last. Labels in the style of nnU-Net 2
(`{"background": 0, "liver": 1}`) and its "channel_names" are understood too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.listing import (
    foreground_labels,
    read_json,
    require_files,
    sorted_unique,
)
from leanseg.errors import DatasetError

LISTING = "dataset.json"


def recognises(folder: Path) -> bool:
    """Whether there is a dataset.json."""
    return (folder / LISTING).is_file()


def read(folder: Path) -> Dataset:
    """The dataset that the folder's dataset.json describes; test scans are cases too.

    Raises:
        DatasetError: If the listing is missing, is not valid, or names missing files.
    """
    source = folder / LISTING
    if not source.is_file():
        msg = f"{folder}: no {LISTING} here; add it, or choose another layout"
        raise DatasetError(msg)
    listing = read_json(source)
    if not isinstance(listing, Mapping):
        msg = f"{source}: expected an object with labels and training cases"
        raise DatasetError(msg)
    if "labels" not in listing:
        msg = f'{source}: "labels" is missing; add it, such as {{"0": "background", "1": "liver"}}'
        raise DatasetError(msg)
    labels = foreground_labels(source, listing["labels"])
    channels = _channels(source, listing)
    cases = _cases(folder, source, listing)
    files = [part.path for case in cases for part in case.sources]
    require_files(source, files)
    name = listing.get("name")
    return Dataset(
        name=name if isinstance(name, str) and name else folder.resolve().name,
        root=folder,
        layout="decathlon",
        cases=sorted_unique(source, cases),
        labels=labels,
        channels=channels,
    )


def _channels(source: Path, listing: Mapping[str, Any]) -> tuple[str, ...]:
    listed = listing.get("modality", listing.get("channel_names", {"0": "CT"}))
    if not isinstance(listed, Mapping) or not listed:
        msg = f'{source}: "modality" must number the channels, such as {{"0": "CT"}}'
        raise DatasetError(msg)
    try:
        # As numbers: in text order channel "10" would come before "2".
        numbers = sorted(listed, key=int)
    except ValueError as error:
        msg = f'{source}: "modality" has the keys {", ".join(map(str, listed))}; use "0", "1", ...'
        raise DatasetError(msg) from error
    return tuple(str(listed[number]) for number in numbers)


def _cases(folder: Path, source: Path, listing: Mapping[str, Any]) -> list[Case]:
    training, test = listing.get("training", []), listing.get("test", [])
    if not isinstance(training, list) or not isinstance(test, list):
        msg = f'{source}: "training" and "test" must be lists of cases'
        raise DatasetError(msg)
    cases = [_case(folder, source, entry, "training") for entry in training]
    cases += [_case(folder, source, entry, "test") for entry in test]
    cases = [case for case in cases if not case.images[0].path.name.startswith(".")]
    if not cases:
        msg = (
            f'{source}: lists no case under "training"; list the cases, '
            "or choose the layout 'plain' for a pair of folders"
        )
        raise DatasetError(msg)
    return cases


def _case(folder: Path, source: Path, entry: Any, part: str) -> Case:
    from leanseg.volumes import volume_stem

    image = entry.get("image") if isinstance(entry, Mapping) else entry
    label = entry.get("label") if isinstance(entry, Mapping) else None
    if not isinstance(image, str) or not isinstance(label, str | None):
        msg = f'{source}: "{part}" has the entry {entry!r}; expected {{"image": ..., "label": ...}}'
        raise DatasetError(msg)
    path = folder / image
    return Case.of_files(
        volume_stem(path), (path,), None if label is None else folder / label, {"part": part}
    )
