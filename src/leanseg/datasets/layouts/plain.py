"""The plain layout: a folder of scans and, beside it, a folder of label maps of the same names.

`images/` and `labels/` (or `imagesTr/labelsTr`, `image/label`, `scans/masks`) are matched by
name. A scan is a volume file, or a folder or zip file with a DICOM series. Channels in several
files carry the suffix `_0000`, `_0001`, ... An optional labels.json gives names:

    {"labels": {"1": "liver", "2": "spleen"}, "channels": ["CT"],
     "annotated": {"case_7": ["liver"]}, "metadata": {"case_7": {"patient": "3"}}}

"annotated" lists cases that do not annotate every label: the others are unknown there. Without
labels.json the values in the label maps are called label_1, label_2, ... A folder of bare scans
is a dataset too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.listing import (
    METADATA,
    entries,
    foreground_labels,
    kept_metadata,
    read_object,
    shortened,
    sorted_unique,
    volumes_in,
    with_metadata,
)
from leanseg.datasets.layouts.naming import FoundLabels
from leanseg.errors import DatasetError, FileFormatError, LeansegError

PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"), ("image", "label"), ("scans", "masks"))
LISTING = "labels.json"
TELLS_ANNOTATED = True
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_EXAMPLE = '{"labels": {"1": "liver"}}'


def recognises(folder: Path) -> bool:
    """Whether there is a folder of scans, or scans."""
    if any((folder / images).is_dir() for images, _ in PAIRS):
        return True
    try:
        return bool(_scans(folder))
    except FileFormatError:
        # A zip file that cannot be unpacked: reading the dataset says why.
        return True


def read(folder: Path) -> Dataset:
    """The dataset in a pair of folders, or in a folder of bare scans.

    Raises:
        DatasetError: If there are no scans, a label map has no scan, the label folder is empty,
            labels.json is not valid, or cases differ in their number of channels.
    """
    images, label_folder = _folders(folder)
    scans = _scans(images)
    if not scans:
        msg = (
            f"{images}: no scans here (.nii, .nii.gz, .mha, .nrrd, folders with DICOM, ...); "
            "add the images"
        )
        raise DatasetError(msg)
    maps = volumes_in(label_folder) if label_folder is not None else []
    if label_folder is not None and not maps:
        msg = f"{label_folder}: no label maps here; add them, or remove the empty folder"
        raise DatasetError(msg)
    described = folder / LISTING
    listing = read_object(described, _EXAMPLE) if described.is_file() else {}
    names = foreground_labels(described, listing["labels"]) if "labels" in listing else None
    cases = _cases(images, scans, maps, listing)
    if listing:
        cases = _annotated(described, listing, names, with_metadata(described, listing, cases))
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="plain",
        cases=sorted_unique(images, cases),
        labels=FoundLabels(maps) if names is None else names,
        channels=_channels(described, listing, cases),
    )


def _folders(folder: Path) -> tuple[Path, Path | None]:
    for images, labels in PAIRS:
        if (folder / images).is_dir():
            return folder / images, folder / labels if (folder / labels).is_dir() else None
    return folder, None


def _scans(folder: Path) -> list[Path]:
    """Volume files and DICOM series; beside bare volume files, those alone."""
    from leanseg.volumes.dicom import is_dicom

    volumes = volumes_in(folder)
    if volumes and not any(folder.name == images for images, _ in PAIRS):
        return volumes
    series = [
        path
        for path in entries(folder)
        if (path.is_dir() or path.suffix.lower() == ".zip") and is_dicom(path)
    ]
    return sorted([*volumes, *series])


def _stem(path: Path) -> str:
    from leanseg.volumes import is_volume_path, volume_stem

    if is_volume_path(path) and path.is_file():
        return volume_stem(path)
    return path.name if path.is_dir() else path.stem


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        stem = _stem(file)
        if stem in found:
            msg = f"{found[stem]} and {file.name} have the same name; keep one of the two"
            raise DatasetError(msg)
        found[stem] = file
    return found


def _cases(
    images: Path, scans: list[Path], maps: list[Path], listing: Mapping[str, Any]
) -> list[Case]:
    labels = _by_stem(maps)
    # Where one channel is listed, `case_0001` is a case and no channel.
    alone = isinstance(listing.get("channels"), list) and len(listing["channels"]) == 1
    groups = _group_channels(scans, set(labels), alone)
    for stem, label in labels.items():
        if stem not in groups:
            msg = f"{label}: no scan called {stem!r} in {images}; add the scan or remove the label"
            raise DatasetError(msg)
    return [Case.of_files(name, files, labels.get(name)) for name, files in groups.items()]


def _group_channels(
    scans: list[Path], labelled: set[str], alone: bool
) -> dict[str, tuple[Path, ...]]:
    """Case name to its channel files; `case_0001` with a label of that very name is a case."""
    by_stem = _by_stem(scans)
    groups: dict[str, list[tuple[int, Path]]] = {}
    for stem, file in by_stem.items():
        match = None if alone else _CHANNEL.fullmatch(stem)
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


def _annotated(
    source: Path, listing: Mapping[str, Any], names: Mapping[str, int] | None, cases: list[Case]
) -> list[Case]:
    """The cases with what labels.json says that they annotate."""
    listed = listing.get("annotated", {})
    known = {case.name for case in cases}
    if not isinstance(listed, Mapping) or not all(isinstance(v, list) for v in listed.values()):
        msg = f'{source}: "annotated" must list labels by case, such as {{"case_1": ["liver"]}}'
        raise DatasetError(msg)
    for name, labels in listed.items():
        if name not in known:
            msg = f'{source}: "annotated" names the case {shortened(name)}, which has no scan'
            raise DatasetError(f"{msg}; remove the line, or correct the name")
        for label in labels:
            if names is None or not isinstance(label, str) or label not in names:
                msg = (
                    f'{source}: "annotated" gives case {name!r} the label {shortened(label)}, '
                    f'which "labels" does not name; add it there'
                )
                raise DatasetError(msg)
    return [
        replace(case, annotated=frozenset(listed[case.name])) if case.name in listed else case
        for case in cases
    ]


def _channels(source: Path, listing: Mapping[str, Any], cases: list[Case]) -> tuple[str, ...]:
    files = cases[0].images
    count = len(files) if len(files) > 1 else _channels_in(files[0].path)
    listed = listing.get("channels", [f"channel_{n}" for n in range(count)])
    if not isinstance(listed, list) or len(listed) != count:
        shown = shortened(listed)
        msg = f'{source}: "channels" is {shown}, but the scans have {count}; name each of them'
        raise DatasetError(msg)
    return tuple(str(name) for name in listed)


def _channels_in(file: Path) -> int:
    from leanseg.volumes import is_volume_path, read_volume

    if not is_volume_path(file):
        # A DICOM series has one value per voxel, and reading it would take its time.
        return 1
    try:
        return read_volume(file).n_channels
    except LeansegError:
        # One damaged scan must not hide the others: whoever loads this case gets the reason.
        return 1


def places(case: Case, name: str, n_channels: int) -> tuple[tuple[str, ...], str | None]:
    """Where a case's files go in this layout: one file per channel, numbered if several.

    Args:
        case: The case.
        name: The case's name, safe for files.
        n_channels: Of the dataset.

    Returns:
        Paths of the images, and of the label map or None, relative to the dataset.
    """
    numbers = [f"_{channel:04d}" for channel in range(n_channels)] if n_channels > 1 else [""]
    images = tuple(f"images/{name}{number}.nii.gz" for number in numbers)
    return images, f"labels/{name}.nii.gz" if case.label_parts else None


def values(labels: Mapping[str, int]) -> dict[str, int]:
    """The values that labels get in this layout: those that they have."""
    return dict(labels)


def description(dataset: Dataset) -> tuple[str, dict[str, Any]]:
    """The description of a dataset whose files lie in their places: file name and content."""
    content: dict[str, Any] = {"channels": list(dataset.channels)}
    if dataset.labels:
        content["labels"] = {str(value): name for name, value in dataset.labels.items()}
    content["annotated"] = {
        case.name: sorted(case.annotated) for case in dataset.cases if case.annotated is not None
    }
    content[METADATA] = kept_metadata(dataset.cases)
    return LISTING, content
