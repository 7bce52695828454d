"""VISCERAL Anatomy3: whole-body CT and MR with one file per organ.

Jimenez-del-Toro et al., "Cloud-Based Evaluation of Anatomical Structure Segmentation and Landmark
Detection Algorithms: VISCERAL Anatomy Benchmarks", IEEE TMI 35, 2016. `Volumes/` holds scans
such as `10000100_1_CTce_ThAb.nii.gz` (patient, scan, modality, region) and `Segmentations/`, at
any depth, `10000100_1_CTce_ThAb_58_6.nii.gz`: the organ's RadLex number, then the segmentation's.

An organ without a file is not annotated in that scan. Where organs overlap, the one further down
in `ORGANS` wins: small organs lie on top of large ones. Where an organ has several
segmentations, that of the highest number is taken. A number that is not in `ORGANS` becomes the
label RID<number>, on top of all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from leanseg.datasets.case import Case, Dataset, Source
from leanseg.datasets.layouts.listing import entries, sorted_unique
from leanseg.datasets.layouts.naming import mask_parts
from leanseg.errors import DatasetError

# RadLex number to name, from the bottom to the top; values are numbered in this order.
ORGANS = {
    1302: "lung_right",
    1326: "lung_left",
    58: "liver",
    86: "spleen",
    40357: "rectus_abdominis_right",
    40358: "rectus_abdominis_left",
    32248: "psoas_major_right",
    32249: "psoas_major_left",
    2473: "sternum",
    29193: "vertebra_L1",
    237: "urinary_bladder",
    29662: "kidney_right",
    29663: "kidney_left",
    480: "aorta",
    170: "pancreas",
    187: "gallbladder",
    1247: "trachea",
    7578: "thyroid_gland",
    30324: "adrenal_gland_right",
    30325: "adrenal_gland_left",
}
_SCAN = re.compile(r"(?P<patient>\d+)_\d+_(?P<modality>CT|MR)[A-Za-z0-9]*_[A-Za-z]+")
_ORGAN = re.compile(rf"(?P<scan>{_SCAN.pattern})_(?P<organ>\d+)_(?P<number>\d+)")
_SCANS, _MASKS = ("volumes", "volume"), ("segmentations", "segmentation")


def recognises(folder: Path) -> bool:
    """Whether there are a Volumes and a Segmentations folder with such names."""
    volumes = _below(folder, _SCANS)
    return any(_SCAN.fullmatch(_stem(path)) for path in volumes) and bool(_folder(folder, _MASKS))


def read(folder: Path) -> Dataset:
    """The scans in Volumes with what Segmentations has for them.

    Raises:
        DatasetError: If there are no scans, or a segmentation has no scan.
    """
    scans = {_stem(path): path for path in _below(folder, _SCANS) if _SCAN.fullmatch(_stem(path))}
    if not scans:
        msg = f"{folder}: no scans such as Volumes/10000100_1_CTce_ThAb.nii.gz here; add them"
        raise DatasetError(msg)
    masks: dict[str, dict[int, tuple[int, Path]]] = {name: {} for name in scans}
    for path in _below(folder, _MASKS):
        match = _ORGAN.fullmatch(_stem(path))
        if match is None:
            continue
        if match["scan"] not in masks:
            msg = f"{path}: no scan called {match['scan']!r} in Volumes; add it, or remove the file"
            raise DatasetError(msg)
        organs, organ, number = masks[match["scan"]], int(match["organ"]), int(match["number"])
        if organ not in organs or organs[organ][0] < number:
            organs[organ] = number, path
    labels = _labels({organ for organs in masks.values() for organ in organs})
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="visceral",
        cases=sorted_unique(folder, [_case(scans[n], masks[n], labels) for n in scans]),
        labels=labels,
        channels=(" or ".join(sorted({_modality(name) for name in scans})),),
    )


def _case(scan: Path, masks: dict[int, tuple[int, Path]], labels: dict[str, int]) -> Case:
    sources = {_name(organ): Source(path) for organ, (_, path) in masks.items()}
    ordered = {name: sources[name] for name in labels if name in sources}
    match = _SCAN.fullmatch(_stem(scan))
    assert match is not None  # only such names are scans
    return Case(
        _stem(scan),
        (Source(scan),),
        mask_parts(ordered, labels),
        annotated=frozenset(ordered),
        metadata={"patient": match["patient"]},
    )


def _labels(organs: set[int]) -> dict[str, int]:
    """Values in the order of `ORGANS`, the same whichever organs there are; unknown ones last."""
    known = {name: n for n, (organ, name) in enumerate(ORGANS.items(), 1) if organ in organs}
    unknown = sorted(organs - set(ORGANS))
    return known | {_name(organ): len(ORGANS) + n for n, organ in enumerate(unknown, 1)}


def _name(organ: int) -> str:
    return ORGANS.get(organ, f"RID{organ}")


def _modality(name: str) -> str:
    match = _SCAN.fullmatch(name)
    return match["modality"] if match is not None else ""


def _folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    found = (path for path in entries(folder) if path.name.lower() in names and path.is_dir())
    return next(found, None)


def _below(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """The volume files under one of the two folders, in folders by modality or not."""
    from leanseg.volumes import is_volume_path

    start = _folder(folder, names)
    if start is not None:
        yield from sorted(path for path in start.rglob("*") if is_volume_path(path))


def _stem(path: Path) -> str:
    from leanseg.volumes import volume_stem

    return volume_stem(path)
