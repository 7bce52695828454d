"""The plain layout: a folder of scans and, beside it, a folder of label maps of the same names.

`images/` and `labels/` (or `imagesTr/labelsTr`, `image/label`, `scans/masks`) are matched by
file stem. Channels in several files carry the suffix `_0000`, `_0001`, ... An optional
labels.json, `{"labels": {"1": "liver"}, "channels": ["CT"]}`, gives names; without it the values
in the label maps are called label_1, label_2, ... A folder of bare scans is a dataset too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.listing import foreground_labels, read_json, sorted_unique
from leanseg.errors import DatasetError, LeansegError

PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"), ("image", "label"), ("scans", "masks"))
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def recognises(folder: Path) -> bool:
    """Whether there is a folder of scans, or scans."""
    if any((folder / images).is_dir() for images, _ in PAIRS):
        return True
    return bool(_volumes(folder))


def read(folder: Path) -> Dataset:
    """The dataset in a pair of folders, or in a folder of bare scans.

    Raises:
        DatasetError: If there are no scans, a label map has no scan, the label folder is empty,
            or cases differ in their number of channels.
    """
    images, label_folder = _folders(folder)
    scans = _volumes(images)
    if not scans:
        msg = f"{images}: no scans here (.nii, .nii.gz, .mha, .nrrd, ...); add the images"
        raise DatasetError(msg)
    maps = _volumes(label_folder) if label_folder is not None else []
    if label_folder is not None and not maps:
        msg = f"{label_folder}: no label maps here; add them, or remove the empty folder"
        raise DatasetError(msg)
    labels_by_stem = _by_stem(maps)
    groups = _group_channels(scans, set(labels_by_stem))
    for stem, label in labels_by_stem.items():
        if stem not in groups:
            msg = f"{label}: no scan called {stem!r} in {images}; add the scan or remove the label"
            raise DatasetError(msg)
    cases = [Case.of_files(name, files, labels_by_stem.get(name)) for name, files in groups.items()]
    described = folder / "labels.json"
    listing = read_json(described) if described.is_file() else {}
    if not isinstance(listing, Mapping):
        msg = f'{described}: expected an object such as {{"labels": {{"1": "liver"}}}}'
        raise DatasetError(msg)
    names = foreground_labels(described, listing["labels"]) if "labels" in listing else None
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="plain",
        cases=sorted_unique(images, cases),
        labels=_FoundLabels(maps) if names is None else names,
        channels=_channels(described, listing, cases),
    )


def _folders(folder: Path) -> tuple[Path, Path | None]:
    for images, labels in PAIRS:
        if (folder / images).is_dir():
            return folder / images, folder / labels if (folder / labels).is_dir() else None
    return folder, None


def _volumes(folder: Path) -> list[Path]:
    from leanseg.volumes import is_volume_path

    return sorted(
        file
        for file in folder.iterdir()
        if not file.name.startswith(".") and is_volume_path(file) and file.is_file()
    )


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    from leanseg.volumes import volume_stem

    found: dict[str, Path] = {}
    for file in files:
        stem = volume_stem(file)
        if stem in found:
            msg = f"{found[stem]} and {file.name} have the same name; keep one of the two"
            raise DatasetError(msg)
        found[stem] = file
    return found


def _group_channels(scans: list[Path], labelled: set[str]) -> dict[str, tuple[Path, ...]]:
    """Case name to its channel files; `case_0001` with a label of that very name is a case."""
    by_stem = _by_stem(scans)
    groups: dict[str, list[tuple[int, Path]]] = {}
    for stem, file in by_stem.items():
        match = _CHANNEL.fullmatch(stem)
        if match and stem not in labelled and f"{match['case']}_0000" in by_stem:
            groups.setdefault(match["case"], []).append((int(match["channel"]), file))
        else:
            groups.setdefault(stem, []).append((0, file))
    first = next(iter(groups))
    expected = [number for number, _ in sorted(groups[first])]
    for name, members in groups.items():
        numbers = [number for number, _ in sorted(members)]
        if numbers != expected:
            msg = (
                f"{members[0][1].parent}: case {name!r} has the channels {numbers}, "
                f"but case {first!r} has {expected}; every case needs the same"
            )
            raise DatasetError(msg)
    return {name: tuple(file for _, file in sorted(members)) for name, members in groups.items()}


class _FoundLabels(Mapping[str, int]):
    """Names for the values in label maps, which are read when somebody first asks.

    Whoever only wants the scans, to predict them, neither waits for the label maps nor stumbles
    over a damaged one.
    """

    def __init__(self, maps: list[Path]) -> None:
        self._maps = maps

    @cached_property
    def _found(self) -> dict[str, int]:
        return _labels_in(self._maps)

    def __getitem__(self, name: str) -> int:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _labels_in(maps: list[Path]) -> dict[str, int]:
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


def _channels(source: Path, listing: Mapping[str, Any], cases: list[Case]) -> tuple[str, ...]:
    files = cases[0].images
    count = len(files) if len(files) > 1 else _channels_in(files[0].path)
    listed = listing.get("channels", [f"channel_{n}" for n in range(count)])
    if not isinstance(listed, list) or len(listed) != count:
        msg = f'{source}: "channels" is {listed!r}, but the scans have {count}; name each of them'
        raise DatasetError(msg)
    return tuple(str(name) for name in listed)


def _channels_in(file: Path) -> int:
    from leanseg.volumes import read_volume

    try:
        return read_volume(file).n_channels
    except LeansegError:
        # One damaged scan must not hide the others: whoever loads this case gets the reason.
        return 1
