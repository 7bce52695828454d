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
from dataclasses import dataclass
from pathlib import Path

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts.listing import (
    entries,
    foreground_labels,
    read_object,
    sorted_unique,
    volumes_in,
)
from leanseg.datasets.layouts.naming import FoundLabels, mapped_part, mask_parts, unified
from leanseg.datasets.layouts.plain import PAIRS
from leanseg.errors import DatasetError

NAMES = "labels.json"
_CHANNELS = {"ct": "CT", "mr": "MR", "mri": "MR"}
_SCANS = (*_CHANNELS, "image", "imaging", "scan", "volume")
_LABELS = ("labels", "label", "segmentation", "seg", "mask")
_MASKS = ("segmentations", "masks")
_EXAMPLE = '{"labels": {"1": "liver"}}'


@dataclass(frozen=True)
class _Found:
    """One case folder."""

    folder: Path
    scan: Path
    label: Path | None
    masks: Mapping[str, Source]


def recognises(folder: Path) -> bool:
    """Whether the folder, or a folder in it, holds a scan under such a name."""
    if any((folder / images).is_dir() for images, _ in PAIRS):
        return False
    if _is_case(folder):
        return True
    return any(_scans(path) for path in entries(folder) if path.is_dir())


def read(folder: Path) -> Dataset:
    """The dataset of the case folders in a folder, or of the one that it is itself.

    Raises:
        DatasetError: If there is no case, a case has two scans or two label maps, or some cases
            name their labels and others do not.
    """
    folders = [folder] if _is_case(folder) else [p for p in entries(folder) if p.is_dir()]
    found = [case for path in folders if (case := _look(path)) is not None]
    if not found:
        msg = f"{folder}: no case folders with a scan such as ct.nii.gz or image.nii.gz; add them"
        raise DatasetError(msg)
    named = {case.folder: _names(case, folder) for case in found}
    maps = [case.label for case in found if case.label is not None]
    labels: Mapping[str, int] = FoundLabels(maps)
    if any(names is not None for names in named.values()):
        labels = unified([names for names in named.values() if names is not None])
        for case in found:
            if case.label is not None and named[case.folder] is None:
                msg = f"{case.label}: other cases name their labels; add a {NAMES} beside it"
                raise DatasetError(msg)
    cases = [_case(case, named[case.folder], labels) for case in found]
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="casefolders",
        cases=sorted_unique(folder, cases),
        labels=labels,
        channels=(_channel(found),),
    )


def _case(found: _Found, names: Mapping[str, int] | None, labels: Mapping[str, int]) -> Case:
    name, images = found.folder.resolve().name, (Source(found.scan),)
    if found.label is not None:
        source = Source(found.label)
        if names is None:
            return Case(name, images, (LabelPart(source),))
        part = mapped_part(source, names, labels)
        return Case(name, images, (part,), _unless_all(names, labels))
    if found.masks:
        parts = mask_parts(found.masks, labels)
        return Case(name, images, parts, _unless_all(found.masks, labels))
    return Case(name, images)


def _unless_all(names: Mapping[str, object], labels: Mapping[str, int]) -> frozenset[str] | None:
    return None if set(names) == set(labels) else frozenset(names)


def _is_case(folder: Path) -> bool:
    """Whether a folder by itself is a case: one scan, and something that labels it."""
    labelled = _called(folder, _LABELS) or any((folder / name).is_dir() for name in _MASKS)
    return bool(labelled) and len(_scans(folder)) == 1


def _look(folder: Path) -> _Found | None:
    """What a folder holds if it is one of a case, judged by names."""
    from leanseg.volumes import volume_stem

    scans, labels = _scans(folder), _called(folder, _LABELS)
    for kind, found in (("scans", scans), ("label maps", labels)):
        if len(found) > 1:
            names = f"{found[0]} and {found[1].name}"
            msg = f"{names} are both {kind} by their names; keep one of the two"
            raise DatasetError(msg)
    if not scans:
        return None
    masks: dict[str, Source] = {}
    if not labels:
        kept = (folder / name for name in _MASKS if (folder / name).is_dir())
        masks = {volume_stem(p): Source(p) for inner in kept for p in volumes_in(inner)}
    return _Found(folder, scans[0], labels[0] if labels else None, masks)


def _scans(folder: Path) -> list[Path]:
    return _called(folder, _SCANS)


def _called(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The volumes in a folder that have one of the names, in any case of letters."""
    from leanseg.volumes import volume_stem

    return [path for path in volumes_in(folder) if volume_stem(path).lower() in names]


def _names(case: _Found, root: Path) -> Mapping[str, int] | None:
    """Name to value in the case's own label map; None where nobody names them."""
    if case.masks:
        return {name: value for value, name in enumerate(case.masks, start=1)}
    if case.label is None:
        return None
    for path in (case.folder / NAMES, root / NAMES):
        if path.is_file():
            listing = read_object(path, _EXAMPLE)
            if "labels" not in listing:
                msg = f'{path}: "labels" is missing; write {_EXAMPLE}'
                raise DatasetError(msg)
            return foreground_labels(path, listing["labels"])
    return None


def _channel(found: list[_Found]) -> str:
    """CT or MR where the names of the scans say so."""
    from leanseg.volumes import volume_stem

    kinds = {_CHANNELS.get(volume_stem(case.scan).lower(), "channel_0") for case in found}
    return kinds.pop() if len(kinds) == 1 else "channel_0"
