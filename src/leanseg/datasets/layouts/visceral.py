"""VISCERAL Anatomy3: whole-body CT and MR with one file per organ.

Jimenez-del-Toro et al., "Cloud-Based Evaluation of Anatomical Structure Segmentation and Landmark
Detection Algorithms: VISCERAL Anatomy Benchmarks", IEEE TMI 35, 2016. `Volumes/` holds scans
such as `10000100_1_CTce_ThAb.nii.gz` (patient, scan, modality, region) and `Segmentations/`, at
any depth, `10000100_1_CTce_ThAb_58_6.nii.gz`: the organ's RadLex number, then the segmentation's.

An organ without a file is not annotated in that scan. Where organs overlap, the one further down
in `visceral.csv` wins: small organs lie on top of large ones. Where an organ has several
segmentations, that of the highest number is taken. A number that is not in the table becomes the
label RID<number>, on top of all others.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from leanseg.datasets.case import Dataset
from leanseg.datasets.layouts.assemble import CaseFiles, assembled
from leanseg.datasets.layouts.patterns import find
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.files import packaged_rows

# Patient, scan, modality, region.
_CASE = "<case:\\d+_\\d+_(CT|MR)[A-Za-z0-9]*_[A-Za-z]+>"
_SCANS = f"<folder:volumes?>/**/{_CASE}{{volume}}"
_FOLDER = "<folder:segmentations?>/"
_MASKS = f"{_FOLDER}**/{_CASE}_<organ:\\d+>_<number:\\d+>{{volume}}"


def recognises(folder: Path) -> bool:
    """Whether there are a Volumes and a Segmentations folder with such names."""
    return bool(find(folder, _FOLDER) and find(folder, _SCANS))


def read(folder: Path) -> Dataset:
    """The scans in Volumes with what Segmentations has for them.

    Raises:
        DatasetError: If there are no scans, or a segmentation has no scan.
    """
    scans = {found.fields["case"]: found.path for found in find(folder, _SCANS)}
    masks: dict[str, dict[int, tuple[int, Path]]] = {name: {} for name in scans}
    for found in find(folder, _MASKS):
        name, organ, number = (found.fields[key] for key in ("case", "organ", "number"))
        if name not in scans:
            msg = f"{found.path}: no scan called {name!r} in Volumes; add it, or remove the file"
            raise DatasetError(msg)
        known = masks[name].get(int(organ), (-1, found.path))
        masks[name][int(organ)] = max(known, (int(number), found.path))
    labels = _labels({organ for organs in masks.values() for organ in organs})
    modalities = sorted({name.split("_")[2][:2].upper() for name in scans})
    channel = " or ".join(modalities)
    order = list(labels)
    cases = []
    for name, path in scans.items():
        own = [(_name(organ), VolumeSource(mask)) for organ, (_, mask) in masks[name].items()]
        own.sort(key=lambda mask: order.index(mask[0]))
        metadata = {"patient": name.split("_")[0]}
        cases.append(CaseFiles(name, {channel: path}, masks=own, metadata=metadata, layered=True))
    return assembled(folder, "visceral", cases, labels)


@cache
def organs_known() -> dict[int, str]:
    """RadLex number to name, from the bottom to the top; values are numbered in this order."""
    rows = packaged_rows("leanseg.datasets.layouts", "visceral.csv")
    return {int(row["radlex"]): row["name"] for row in rows}


def _labels(organs: set[int]) -> dict[str, int]:
    """Values in the table's order, the same whichever organs there are; unknown ones last."""
    table = organs_known()
    known = {name: n for n, (organ, name) in enumerate(table.items(), 1) if organ in organs}
    unknown = sorted(organs - set(table))
    return known | {_name(organ): len(table) + n for n, organ in enumerate(unknown, 1)}


def _name(organ: int) -> str:
    return organs_known().get(organ, f"RID{organ}")
