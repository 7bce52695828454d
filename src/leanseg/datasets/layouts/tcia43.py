"""The layout of the multi-organ labels of Gibson et al.: 43 scans of NIH Pancreas-CT, 47 of BTCV.

    label_tcia_multiorgan/label0002.nii.gz    with PANCREAS_0002/ (DICOM) or PANCREAS_0002.nii.gz
    label_btcv_multiorgan/label0001.nii.gz    with img0001.nii.gz
    cropping.csv                              one box a case; optional

Gibson et al., "Automatic Multi-Organ Segmentation on Abdominal CT With Dense V-Networks", IEEE TMI
37, 2018; labels and boxes: https://zenodo.org/records/1169361; OBELISK-Net (Heinrich et al. 2019)
uses the 43. Folders of scans may lie anywhere two levels deep and be called anything; a converted
scan img0002.nii.gz is taken for NIH's where its folder's name has "tcia" in it.

Labels. The files hold the values of BTCV with the duodenum as 14: 1 spleen, 3 left kidney,
4 gallbladder, 5 esophagus, 6 liver, 7 stomach, 11 pancreas, 14 duodenum. These eight become 1 to 8
in the order of OBELISK-Net (its published TCIA_labels.txt). Other values (right kidney, vessels,
adrenal glands) are annotated in some of the BTCV cases only and are not among the dataset's labels.

Boxes. cropping.csv has the columns publisher, original_id, extent_ant, extent_post, extent_left,
extent_right, extent_inf, extent_sup. Where the file is there it is applied, with exact affines. As
in the preprocessing that OBELISK-Net's authors published, extents are voxels of the whole scan from
0, the first included and the last not; columns count from the image's left edge, which is the
patient's right, rows from the front, slices from the feet. A second public converter reads the
directions alike. Whether the record means the last voxel to be in the box could not be verified.

Geometry. A label whose header agrees with its scan is used as it is. Otherwise its voxels are
those of the DICOM series in ITK's slice order (that same preprocessing crops both alike), and for
scans converted to files the directions of both headers are believed, which could not be verified
on the data here. Look at one overlay first.

PANCREAS_0025 was withdrawn by NIH as a copy of patient 2: its label is skipped where there is no
scan, and metadata["patient"] tells that the two are one patient. metadata["number"] is the case's
number, 1 to 43, that OBELISK-Net's folds (1-10, 11-21, 22-32, 33-43) go by.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts.listing import sorted_unique
from leanseg.datasets.layouts.nih_pancreas import WITHDRAWN, label_files
from leanseg.errors import DatasetError

LABELS = {
    "spleen": 1,
    "pancreas": 2,
    "left kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "duodenum": 8,
}
_VALUES = {1: 1, 11: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 14: 8}
TCIA_CASES = (*range(2, 15), *range(16, 23), *range(24, 36), *range(38, 49))
LISTING = "cropping.csv"
_PUBLISHERS = {"tcia": "tcia", "synapse": "btcv"}
_COLUMNS = {
    "LR": ("extent_left", "extent_right"),
    "AP": ("extent_ant", "extent_post"),
    "IS": ("extent_inf", "extent_sup"),
}
_LABEL_FOLDER = re.compile(r"label_(tcia|btcv)_multiorgan", re.IGNORECASE)
_PANCREAS = re.compile(r"PANCREAS_(\d{4})(?:\..*)?", re.IGNORECASE)
_IMG = re.compile(r"img(\d{4})", re.IGNORECASE)
_DEPTH = 3

Boxes = Mapping[tuple[str, int], Mapping[str, list[int]]]


def recognises(folder: Path) -> bool:
    """Whether a folder label_tcia_multiorgan or label_btcv_multiorgan is here or just below."""
    return any(_LABEL_FOLDER.fullmatch(entry.name) for entry in _walk(folder, 1))


def read(folder: Path) -> Dataset:
    """The dataset of all labels here, with their scans.

    Raises:
        DatasetError: If there are no labels, a label has no scan, or the boxes are damaged.
    """
    entries = list(_walk(folder, _DEPTH))
    found = [entry for entry in entries if entry.is_dir() and _LABEL_FOLDER.fullmatch(entry.name)]
    if not found:
        msg = f"{folder}: no folder label_tcia_multiorgan or label_btcv_multiorgan here; add it"
        raise DatasetError(msg)
    listings = [entry for entry in entries if entry.name.lower() == LISTING]
    boxes = read_boxes(listings[0]) if listings else {}
    labels: dict[tuple[str, int], Path] = {}
    for place in found:
        for number, file in label_files(place).items():
            labels.setdefault((place.name.lower().split("_")[1], number), file)
    scans = _scans(entries, only_tcia=all(source == "tcia" for source, _ in labels))
    cases = []
    for (source, number), label in labels.items():
        scan = scans.get((source, number))
        if scan is None and source == "tcia" and number in WITHDRAWN:
            continue
        if scan is None:
            wanted = f"PANCREAS_{number:04d}" if source == "tcia" else f"img{number:04d}.nii.gz"
            msg = f"{label}: its scan {wanted} is not in {folder}; add it, or remove the label"
            raise DatasetError(msg)
        if boxes and (source, number) not in boxes:
            msg = f"{listings[0]}: no row for the case of {label}; add it, or remove the listing"
            raise DatasetError(msg)
        cases.append(_case(source, number, scan, label, boxes.get((source, number), {})))
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="tcia43",
        cases=sorted_unique(folder, cases),
        labels=LABELS,
        channels=("CT",),
    )


def read_boxes(path: Path) -> dict[tuple[str, int], dict[str, list[int]]]:
    """The boxes in a cropping.csv: ("tcia" or "btcv", original number) to extents in voxels.

    Raises:
        DatasetError: If a column is missing, or a row holds other than whole numbers.
    """
    wanted = ["publisher", "original_id", *(name for pair in _COLUMNS.values() for name in pair)]
    boxes: dict[tuple[str, int], dict[str, list[int]]] = {}
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        rows = csv.DictReader(file)
        missing = [name for name in wanted if name not in (rows.fieldnames or ())]
        if missing:
            msg = f"{path}: the column {missing[0]} is missing; use the file as published"
            raise DatasetError(msg)
        for row in rows:
            publisher = (row["publisher"] or "").strip().lower()
            if not publisher:
                continue
            try:
                key = (_PUBLISHERS.get(publisher, publisher), int(row["original_id"]))
                boxes[key] = {
                    axis: [int(row[low]), int(row[high])] for axis, (low, high) in _COLUMNS.items()
                }
            except (TypeError, ValueError) as error:
                msg = f"{path}: line {rows.line_num} holds other than whole numbers; correct it"
                raise DatasetError(msg) from error
    return boxes


def _case(
    source: str, number: int, scan: Path, label: Path, extent: Mapping[str, list[int]]
) -> Case:
    options = {"extent": {axis: list(ends) for axis, ends in extent.items()}} if extent else {}
    patient = 2 if source == "tcia" and number in WITHDRAWN else number
    metadata = {"patient": f"{source} {patient:04d}"}
    if source == "tcia" and number in TCIA_CASES:
        metadata["number"] = str(TCIA_CASES.index(number) + 1)
    return Case(
        f"{source}_{number:04d}",
        (Source(scan, "companion", options),),
        (LabelPart(Source(label, "companion", options), values=_VALUES),),
        metadata=metadata,
    )


def _scans(entries: list[Path], *, only_tcia: bool) -> dict[tuple[str, int], Path]:
    """Where the scan of ("tcia" or "btcv", number) lies."""
    from leanseg.volumes import is_volume_path, volume_stem

    scans: dict[tuple[str, int], Path] = {}
    for entry in entries:
        pancreas = _PANCREAS.fullmatch(entry.name)
        if pancreas and (entry.is_dir() or is_volume_path(entry)):
            scans.setdefault(("tcia", int(pancreas[1])), entry)
        converted = _IMG.fullmatch(volume_stem(entry)) if is_volume_path(entry) else None
        if converted:
            source = "tcia" if only_tcia or "tcia" in entry.parent.name.lower() else "btcv"
            scans.setdefault((source, int(converted[1])), entry)
    return scans


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """What is in a folder and below, `depth` levels down; patients' own folders stay closed."""
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith((".", "__MACOSX")):
            continue
        path = Path(entry.path)
        yield path
        if depth > 0 and entry.is_dir() and not _PANCREAS.fullmatch(entry.name):
            yield from _walk(path, depth - 1)
