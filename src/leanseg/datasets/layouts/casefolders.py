"""A folder for each case, with the scan and its labels in it under names that say what they are.

`CASE/ct.nii.gz` (or image, imaging, scan, volume, mr, mri) beside `CASE/labels.nii.gz` (or label,
segmentation, seg, mask), in any volume format. `CASE/labels.json`, `{"labels": {"1": "liver"}}`,
names the values and says by this what the case annotates: labels that other cases have besides
are unknown in this one. A labels.json beside the case folders holds for cases without their own.
Names decide: cases may number the same organ differently.

Instead of a label map, a folder `CASE/segmentations/` (or masks) may hold one mask per organ, as
TotalSegmentator's dataset does, laid over each other in the order of the alphabet: one may lie
within another (kidney, kidney_tumour); voxels that two share otherwise are refused. A mask called
ignore lies over all others.

One such case folder by itself is a dataset too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from leanseg.datasets.case import Dataset
from leanseg.datasets.layouts.assemble import CaseFiles, assembled
from leanseg.datasets.layouts.listing import LABELS_JSON, read_labels_json
from leanseg.datasets.layouts.patterns import Found, find
from leanseg.datasets.layouts.plain import PAIRS
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError

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
    places = [folder] if _is_case(folder) else [found.path for found in find(folder, "*/")]
    scans = {place: scan for place in places if (scan := _only(place, _SCAN, "scans"))}
    kinds = {_CHANNELS.get(scan.fields["scan"].lower(), "channel_0") for scan in scans.values()}
    channel = kinds.pop() if len(kinds) == 1 else "channel_0"
    cases = []
    for place, scan in scans.items():
        case = CaseFiles(place.resolve().name, {channel: scan.path})
        if label := _only(place, _LABEL, "label maps"):
            case.label, case.names = VolumeSource(label.path), _names(place, folder)
        else:
            masks = find(place, f"{_MASKS}<label>{{volume}}")
            case.masks = [(mask.fields["label"], VolumeSource(mask.path)) for mask in masks]
        cases.append(case)
    return assembled(folder, "casefolders", cases)


def _is_case(folder: Path) -> bool:
    """Whether a folder by itself is a case: one scan, and something that labels it."""
    return len(find(folder, _SCAN)) == 1 and bool(find(folder, _LABEL, _MASKS))


def _only(folder: Path, pattern: str, what: str) -> Found | None:
    found = find(folder, pattern)
    if len(found) > 1:
        names = f"{found[0].path} and {found[1].path.name}"
        raise DatasetError(f"{names} are both {what} by their names; keep one of the two")
    return found[0] if found else None


def _names(place: Path, root: Path) -> Mapping[str, int] | None:
    """Name to value in the label map of a case; None where nobody names them."""
    for folder in (place, root):
        if (folder / LABELS_JSON).is_file():
            labels = read_labels_json(folder).labels
            if not labels:
                path = folder / LABELS_JSON
                msg = f'{path}: "labels" is missing; write {{"labels": {{"1": "liver"}}}}'
                raise DatasetError(msg)
            return labels
    return None
