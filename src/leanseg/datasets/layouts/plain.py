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
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from leanseg.datasets.case import Dataset, generic_channels, name_of
from leanseg.datasets.layouts.assemble import CaseFiles, assembled
from leanseg.datasets.layouts.listing import (
    LABELS_JSON,
    LabelsJson,
    kept_metadata,
    read_labels_json,
    require_cases,
)
from leanseg.datasets.layouts.patterns import by_name, entries, find
from leanseg.datasets.layouts.writing import Target
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError, FileFormatError
from leanseg.files import shortened
from leanseg.volumes import VOLUME_SUFFIXES

PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"), ("image", "label"), ("scans", "masks"))
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


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
    scans = by_name(((name_of(path), path) for path in _scans(images)), "scans")
    if not scans:
        raise DatasetError(
            f"{images}: no scans here ({', '.join(VOLUME_SUFFIXES)}, folders with DICOM, ...); "
            "add the images"
        )
    found = [] if label_folder is None else _volumes(label_folder)
    maps = by_name(((name_of(path), path) for path in found), "label maps")
    if label_folder is not None and not maps:
        msg = f"{label_folder}: no label maps here; add them, or remove the empty folder"
        raise DatasetError(msg)
    described, listing = folder / LABELS_JSON, read_labels_json(folder)
    # Where one channel is listed, `case_0001` is a case and no channel.
    alone = listing.channels is not None and len(listing.channels) == 1
    groups = _channels_by_case(scans, set(scans) if alone else set(maps))
    cases = [CaseFiles(name, files) for name, files in groups.items()]
    for name, label in maps.items():
        if name not in groups:
            msg = f"{label}: no scan called {name!r} in {images}; add the scan or remove the label"
            raise DatasetError(msg)
    for case in cases:
        case.annotated = listing.annotated.get(case.name)
        case.metadata = listing.metadata.get(case.name, {})
        if case.name in maps:
            case.label, case.names = VolumeSource(maps[case.name]), listing.labels or None
    for key, named in (("annotated", listing.annotated), ("metadata", listing.metadata)):
        require_cases(described, key, named, groups)
    channels = _channels(described, listing, cases[0])
    labels = listing.labels or None
    return assembled(folder, "plain", cases, labels, channels)


def _folders(folder: Path) -> tuple[Path, Path | None]:
    for images, labels in PAIRS:
        if (folder / images).is_dir():
            return folder / images, folder / labels if (folder / labels).is_dir() else None
    return folder, None


def _volumes(folder: Path) -> list[Path]:
    return [found.path for found in find(folder, "*{volume}")]


def _scans(folder: Path) -> list[Path]:
    """Volume files and DICOM series; beside bare volume files, those alone."""
    from leanseg.volumes.dicom import is_dicom

    volumes = _volumes(folder)
    if volumes and not any(folder.name == images for images, _ in PAIRS):
        return volumes
    series = [
        path
        for path in entries(folder)
        if (path.is_dir() or path.suffix.lower() == ".zip") and is_dicom(path)
    ]
    return sorted([*volumes, *series])


def _channels_by_case(
    scans: Mapping[str, Path], cases: Collection[str]
) -> dict[str, dict[str, Path]]:
    """Name of each case to its files by channel.

    Args:
        scans: All files by name.
        cases: Names that are cases, even where they end like the number of a channel.
    """
    groups: dict[str, dict[str, Path]] = {}
    for name, file in sorted(scans.items()):
        match = _CHANNEL.fullmatch(name)
        if match and name not in cases and f"{match['case']}_0000" in scans:
            groups.setdefault(match["case"], {})[f"channel_{int(match['channel'])}"] = file
        else:
            groups.setdefault(name, {})["channel_0"] = file
    return groups


def _channels(source: Path, listing: LabelsJson, first: CaseFiles) -> list[str]:
    images = [VolumeSource(path) for path in first.images.values()]
    generic = list(generic_channels(images))
    if listing.channels is None:
        return generic
    if len(listing.channels) != len(generic):
        shown = shortened(listing.channels)
        raise DatasetError(
            f'{source}: "channels" is {shown}, but the scans have {len(generic)}; name each of them'
        )
    return [str(name) for name in listing.channels]


def _described(dataset: Dataset) -> dict[str, Any]:
    content: dict[str, Any] = {"channels": list(dataset.channels)}
    if dataset.labels:
        content["labels"] = {str(value): name for name, value in dataset.labels.items()}
    content["annotated"] = {
        case.name: sorted(case.annotated) for case in dataset.cases if case.annotated is not None
    }
    content["metadata"] = kept_metadata(dataset.cases)
    return content


TARGET = Target(
    image="images/{case}_{channel:04d}.nii.gz",
    single_image="images/{case}.nii.gz",
    label_map="labels/{case}.nii.gz",
    listing=LABELS_JSON,
    described=_described,
    tells_annotated=True,
)
