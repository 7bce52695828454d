"""The raw data folder of nnU-Net 2, and the Task folders of nnU-Net 1.

`DatasetXXX_Name/{imagesTr,labelsTr,imagesTs}` with one file per channel, `CASE_0000.nii.gz`,
and a dataset.json (Isensee et al., nnU-Net's documentation, "dataset format"). Labels of the test
scans in labelsTs are taken too; a list of cases under "dataset" goes before the folders. Files
may be of any kind that "file_ending" names and leanseg reads; splits_final.json is left alone.

Regions, `"whole tumour": [1, 2, 3]`, overlap, while a label map holds one number per voxel. So
the numbers become the labels: one that a name stands for alone has that name, the others are
called label_1, label_2, ...; a recipe's `data.labels` merges them into the region again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.listing import (
    METADATA,
    entries,
    foreground_labels,
    kept_metadata,
    numbered_names,
    read_json,
    read_object,
    require_files,
    shortened,
    sorted_unique,
    with_metadata,
)
from leanseg.errors import DatasetError

LISTING = "dataset.json"
TELLS_ANNOTATED = False
IGNORE = "ignore"
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_PARTS = {"training": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
_EXAMPLE = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}'


def recognises(folder: Path) -> bool:
    """Whether there is a dataset.json as nnU-Net writes it, or a Task folder of nnU-Net 1."""
    source = folder / LISTING
    if not source.is_file():
        return False
    try:
        listing = read_json(source)
    except DatasetError:
        return False
    if not isinstance(listing, Mapping):
        return False
    if isinstance(listing.get("dataset"), Mapping):
        return True
    training, numbered = listing.get("training"), _first_channels(folder / "imagesTr")
    if not training:
        return "file_ending" in listing or "channel_names" in listing or bool(numbered)
    if "file_ending" in listing and numbered:
        return True
    return isinstance(training, list) and _is_first_version(folder, training[0])


def _is_first_version(folder: Path, entry: Any) -> bool:
    """Whether a listed scan is there only with a channel number, as nnU-Net 1 names files."""
    image = entry.get("image") if isinstance(entry, Mapping) else None
    if not isinstance(image, str) or not image.endswith(".nii.gz") or len(image) > 1000:
        return False
    numbered = image.removesuffix(".nii.gz") + "_0000.nii.gz"
    return not (folder / image).is_file() and (folder / numbered).is_file()


def _first_channels(folder: Path) -> list[Path]:
    found = entries(folder) if folder.is_dir() else []
    return [path for path in found if "_0000." in path.name]


def read(folder: Path) -> Dataset:
    """The dataset in a raw data folder; the scans in imagesTs are cases too.

    Raises:
        DatasetError: If the listing is missing or not valid, has the label "ignore", a case lacks
            a channel or, among the training cases, its label map, or there are no scans.
    """
    source = folder / LISTING
    if not source.is_file():
        msg = f"{folder}: no {LISTING} here; add it, or choose another layout"
        raise DatasetError(msg)
    listing = read_object(source, _EXAMPLE)
    if "labels" not in listing:
        msg = f'{source}: "labels" is missing; add it, such as {{"background": 0, "liver": 1}}'
        raise DatasetError(msg)
    key = "channel_names" if "channel_names" in listing else "modality"
    channels = numbered_names(source, key, listing.get(key, {"0": "CT"}))
    if isinstance(listing.get("dataset"), Mapping):
        cases = [_listed(folder, source, name, e) for name, e in listing["dataset"].items()]
    else:
        cases = _found(folder, _ending(source, listing))
    for case in cases:
        if len(case.images) != len(channels):
            msg = (
                f"{source}: case {shortened(case.name)} has {len(case.images)} file(s), but the "
                f"channels are {', '.join(channels)}; every case needs one file for each"
            )
            raise DatasetError(msg)
    require_files(source, [part.path for case in cases for part in case.sources])
    name = listing.get("name")
    return Dataset(
        name=name if isinstance(name, str) and name else folder.resolve().name,
        root=folder,
        layout="nnunet",
        cases=sorted_unique(source, with_metadata(source, listing, cases)),
        labels=_labels(source, listing["labels"]),
        channels=channels,
    )


def _labels(source: Path, listed: Any) -> dict[str, int]:
    if isinstance(listed, Mapping) and IGNORE in listed:
        msg = (
            f'{source}: voxels of the label "{IGNORE}" ({shortened(listed[IGNORE])}) are not '
            "annotated, which leanseg can tell of whole labels only; leave those cases out, or "
            "annotate them, and remove the label"
        )
        raise DatasetError(msg)
    if not isinstance(listed, Mapping) or not any(isinstance(v, list) for v in listed.values()):
        return foreground_labels(source, listed)
    alone: dict[str, Any] = {}
    members: set[int] = set()
    for name, value in listed.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(number, bool) or not isinstance(number, int) for number in values):
            msg = f"{source}: region {shortened(name)} is {shortened(value)}; list whole numbers"
            raise DatasetError(msg)
        members.update(values)
        if len(values) == 1:
            alone[name] = values[0]
    taken = set(alone.values())
    nameless = {f"label_{value}": value for value in sorted(members - taken)}
    return foreground_labels(source, {**alone, **nameless})


def _ending(source: Path, listing: Mapping[str, Any]) -> str:
    from leanseg.volumes import VOLUME_SUFFIXES

    ending = listing.get("file_ending", ".nii.gz")
    if ending not in VOLUME_SUFFIXES:
        msg = (
            f'{source}: "file_ending" is {shortened(ending)}; '
            f"leanseg reads {', '.join(VOLUME_SUFFIXES)}"
        )
        raise DatasetError(msg)
    return str(ending)


def _listed(folder: Path, source: Path, name: str, entry: Any) -> Case:
    """A case under "dataset"; its paths may hold $VARIABLES, as nnU-Net allows."""
    images = entry.get("images") if isinstance(entry, Mapping) else None
    label = entry.get("label") if isinstance(entry, Mapping) else None
    texts = isinstance(images, list) and all(isinstance(path, str) for path in images)
    if not texts or not images or not isinstance(label, str | None):
        msg = (
            f'{source}: "dataset" has for {shortened(name)} the entry {shortened(entry)}; '
            'expected {"images": [...], "label": ...}'
        )
        raise DatasetError(msg)
    paths = [folder / os.path.expandvars(path) for path in images]
    where = None if label is None else folder / os.path.expandvars(label)
    return Case.of_files(name, paths, where, {"part": "training"})


def _found(folder: Path, ending: str) -> list[Case]:
    cases: list[Case] = []
    for part, (images, labels) in _PARTS.items():
        if not (folder / images).is_dir():
            continue
        for name, files in _by_case(folder / images, ending).items():
            label: Path | None = folder / labels / f"{name}{ending}"
            if part == "test" and not (folder / labels / f"{name}{ending}").is_file():
                label = None
            cases.append(Case.of_files(name, files, label, {"part": part}))
    if not cases:
        msg = (
            f"{folder / 'imagesTr'}: no scans here that are named like case_0000{ending}; add "
            'them, or correct "file_ending" in dataset.json'
        )
        raise DatasetError(msg)
    return cases


def _by_case(folder: Path, ending: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in entries(folder):
        match = _CHANNEL.fullmatch(path.name.removesuffix(ending))
        if match is None or not path.name.endswith(ending):
            continue
        files = found.setdefault(match["case"], [])
        if int(match["channel"]) != len(files):
            msg = (
                f"{path}: case {match['case']!r} has this channel, but not that of number "
                f"{len(files):04d}; add the file"
            )
            raise DatasetError(msg)
        files.append(path)
    return found


def places(case: Case, name: str, n_channels: int) -> tuple[tuple[str, ...], str | None]:
    """Where a case's files go in this layout: one file per channel.

    Args:
        case: Goes among the test scans where it has no labels.
        name: The case's name, safe for files.
        n_channels: Of the dataset.

    Returns:
        Paths of the images, and of the label map or None, relative to the dataset.
    """
    # nnU-Net trains on every case in imagesTr, so that one without labels cannot stay there.
    test = not case.label_parts or case.metadata.get("part") == "test"
    images, labels = _PARTS["test" if test else "training"]
    files = tuple(f"{images}/{name}_{channel:04d}.nii.gz" for channel in range(n_channels))
    return files, f"{labels}/{name}.nii.gz" if case.label_parts else None


def values(labels: Mapping[str, int]) -> dict[str, int]:
    """The values that labels get in this layout: 1, 2, 3, ... without a gap, as nnU-Net wants."""
    return {name: value for value, name in enumerate(labels, start=1)}


def description(dataset: Dataset) -> tuple[str, dict[str, Any]]:
    """The description of a dataset whose files lie in their places: file name and content.

    Raises:
        DatasetError: If a label has a name that nnU-Net gives a meaning of its own.
    """
    for name in dataset.labels:
        if name in (IGNORE, "background"):
            msg = f"{dataset.root}: nnU-Net takes the label {name!r} for something else; rename it"
            raise DatasetError(msg)
    training = sum(places(case, "", 1)[0][0].startswith("imagesTr") for case in dataset.cases)
    content = {
        "name": dataset.name,
        "channel_names": {str(n): name for n, name in enumerate(dataset.channels)},
        "labels": {"background": 0, **dataset.labels},
        "numTraining": training,
        "file_ending": ".nii.gz",
        METADATA: kept_metadata(dataset.cases, "part"),
    }
    return LISTING, content
