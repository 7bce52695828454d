"""A folder for each case, with the scan and its labels in it under names that say what they are.

`CASE/ct.nii.gz` (or image, imaging, scan, volume, mr, mri) beside `CASE/labels.nii.gz` (or label,
segmentation, seg, mask), in any volume format. `CASE/labels.json`, `{"labels": {"1": "liver"}}`,
names the values and says by this what the case annotates: labels that other cases have besides
are unknown in this one. A labels.json beside the case folders holds for cases without their own.
Names decide: cases may number the same organ differently.

Instead of a label map, a folder `CASE/segmentations/` (or masks) may hold one mask per organ, as
TotalSegmentator's dataset does; where two overlap, the later one in the alphabet wins.

One such case folder by itself is a dataset too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.jsonfiles import read_listing
from leanseg.datasets.labels import FoundLabels, mapped_part, unified
from leanseg.datasets.layouts.listing import LabelsJson
from leanseg.datasets.layouts.patterns import CaseFiles, dataset_of, find, grouped, mask_parts
from leanseg.datasets.layouts.plain import PAIRS
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes import volume_stem

NAMES = "labels.json"
_CHANNELS = {"ct": "CT", "mr": "MR", "mri": "MR"}
_SCAN = "<scan:ct|mri?|image|imaging|scan|volume>{volume}"
_LABEL = "<map:labels?|segmentation|seg|mask>{volume}"
_MASKS = "<folder:segmentations|masks>/"


def recognises(folder: Path) -> bool:
    """Whether the folder, or a folder in it, holds a scan under such a name."""
    if any((folder / images).is_dir() for images, _ in PAIRS):
        return False
    return _is_case(folder) or bool(find(folder, f"*/{_SCAN}"))


def read(folder: Path) -> Dataset:
    """The dataset of the case folders in a folder, or of the one that it is itself.

    Raises:
        DatasetError: If there is no case, a case has two scans or two label maps, or some cases
            name their labels and others do not.
    """
    place = "" if _is_case(folder) else "<case>/"
    masks = f"{place}{_MASKS}<label>{{volume}}"
    found = grouped(folder, [place + _SCAN], [place + _LABEL], [masks])
    if not found:
        msg = f"{folder}: no case folders with a scan such as ct.nii.gz or image.nii.gz; add them"
        raise DatasetError(msg)
    names = {files.name: _names(files, folder) for files in found}
    named = [own for own in names.values() if own is not None]
    maps = [files.label for files in found if files.label is not None]
    labels = unified(named) if named else FoundLabels(map(VolumeSource.of, maps))
    for files in found:
        if named and files.label is not None and names[files.name] is None:
            msg = f"{files.label}: other cases name their labels; add a {NAMES} beside it"
            raise DatasetError(msg)
    kinds = {_CHANNELS.get(volume_stem(files.scan).lower(), "channel_0") for files in found}
    channel = kinds.pop() if len(kinds) == 1 else "channel_0"
    cases = [_case(files, names[files.name], labels) for files in found]
    return dataset_of(folder, "casefolders", cases, labels, (channel,))


def _is_case(folder: Path) -> bool:
    """Whether a folder by itself is a case: one scan, and something that labels it."""
    return len(find(folder, _SCAN)) == 1 and bool(find(folder, _LABEL, _MASKS))


def _names(files: CaseFiles, root: Path) -> Mapping[str, int] | None:
    """Name to value in the case's own label map; None where nobody names them."""
    if files.label is None:
        return {name: value for value, name in enumerate(files.masks, start=1)} or None
    for path in (files.scan.parent / NAMES, root / NAMES):
        if path.is_file():
            listing = read_listing(path, LabelsJson)
            if not listing.labels:
                msg = f'{path}: "labels" is missing; write {{"labels": {{"1": "liver"}}}}'
                raise DatasetError(msg)
            return listing.labels
    return None


def _case(files: CaseFiles, names: Mapping[str, int] | None, labels: Mapping[str, int]) -> Case:
    if names is None:
        return Case(files.scan, files.label, files.name)
    if files.label is None:
        parts = mask_parts(files.masks, labels)
    else:
        parts = [mapped_part(VolumeSource(files.label), names, labels)]
    annotated = None if set(names) == set(labels) else names
    return Case(files.scan, parts, files.name, annotated=annotated)
