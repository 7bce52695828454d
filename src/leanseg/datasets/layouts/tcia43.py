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
number, 1 to 43, and metadata["fold"] its fold in OBELISK-Net's cross-validation, 1 to 4: the
numbers 1-10, 11-21, 22-32 and 33-43.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.assemble import dataset_of
from leanseg.datasets.layouts.listing import read_table
from leanseg.datasets.layouts.nih_pancreas import WITHDRAWN
from leanseg.datasets.layouts.patterns import find
from leanseg.datasets.sources import LabelPart, VolumeSource
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
# The first numbers of the second fold and those behind it.
_FOLDS_FROM = (11, 22, 33)
_PUBLISHERS = {"tcia": "tcia", "synapse": "btcv"}
_EXTENTS = {
    "LR": ("extent_left", "extent_right"),
    "AP": ("extent_ant", "extent_post"),
    "IS": ("extent_inf", "extent_sup"),
}
_LABEL_FOLDER = "label_<publisher:tcia|btcv>_multiorgan/"
# Scans may lie this deep, the patients' own folders not counted.
_PLACES = ("", "*/", "*/*/", "*/*/*/")

# Who published a case, tcia or btcv, and its number there.
_Key = tuple[str, int]


def recognises(folder: Path) -> bool:
    """Whether a folder label_tcia_multiorgan or label_btcv_multiorgan is here or just below."""
    return bool(find(folder, _LABEL_FOLDER, f"*/{_LABEL_FOLDER}"))


def read(folder: Path) -> Dataset:
    """The dataset of all labels here, with their scans.

    Raises:
        DatasetError: If there are no labels, a label has no scan, or the boxes are damaged.
    """
    patterns = (f"{place}{_LABEL_FOLDER}label<number:\\d{{4}}>{{volume}}" for place in _PLACES)
    labels: dict[_Key, Path] = {}
    for found in find(folder, *patterns):
        key = (found.fields["publisher"].lower(), int(found.fields["number"]))
        labels.setdefault(key, found.path)
    scans = _scans(folder, only_tcia=all(publisher == "tcia" for publisher, _ in labels))
    listing = next((f.path for f in find(folder, *(f"{p}cropping.csv" for p in _PLACES))), None)
    boxes = {} if listing is None else read_boxes(listing)
    cases = []
    for key, label in labels.items():
        publisher, number = key
        if key not in scans:
            if publisher == "tcia" and f"{number:04d}" in WITHDRAWN:
                continue
            wanted = f"PANCREAS_{number:04d}" if publisher == "tcia" else f"img{number:04d}.nii.gz"
            msg = f"{label}: its scan {wanted} is not in {folder}; add it, or remove the label"
            raise DatasetError(msg)
        if listing is not None and key not in boxes:
            msg = f"{listing}: no row for the case of {label}; add it, or remove the listing"
            raise DatasetError(msg)
        cases.append(_case(key, scans[key], label, boxes.get(key)))
    return dataset_of(folder, "tcia43", cases, LABELS)


def read_boxes(path: Path) -> dict[_Key, dict[str, list[int]]]:
    """The boxes in a cropping.csv: ("tcia" or "btcv", original number) to extents in voxels.

    Raises:
        DatasetError: If it is no table, or whole numbers are missing in it.
    """
    boxes: dict[_Key, dict[str, list[int]]] = {}
    for line, row in read_table(path).items():
        try:
            publisher, number = row["publisher"].lower(), int(row["original_id"])
            extents = {axis: [int(row[end]) for end in ends] for axis, ends in _EXTENTS.items()}
        except (KeyError, ValueError) as error:
            msg = f"{path}: line {line} has no whole number where one belongs ({error})"
            raise DatasetError(f"{msg}; use the file as published") from error
        boxes[_PUBLISHERS.get(publisher, publisher), number] = extents
    return boxes


def _case(key: _Key, scan: Path, label: Path, box: Mapping[str, list[int]] | None) -> Case:
    publisher, number = key
    options = {} if box is None else {"extent": dict(box)}
    part = LabelPart(VolumeSource(label, "companion", options), values=_VALUES)
    copy_of_2 = publisher == "tcia" and f"{number:04d}" in WITHDRAWN
    metadata = {"patient": f"{publisher} {2 if copy_of_2 else number:04d}"}
    if publisher == "tcia" and number in TCIA_CASES:
        new_number = TCIA_CASES.index(number) + 1
        metadata["number"] = str(new_number)
        metadata["fold"] = str(bisect_right(_FOLDS_FROM, new_number) + 1)
    image = VolumeSource(scan, "companion", options)
    return Case(image, [part], f"{publisher}_{number:04d}", metadata=metadata)


def _scans(folder: Path, *, only_tcia: bool) -> dict[_Key, Path]:
    """Where the scan of each case lies."""
    scans: dict[_Key, Path] = {}
    ends = ("PANCREAS_<number:\\d{4}>/", "PANCREAS_<number:\\d{4}>{volume}")
    for found in find(folder, *(place + end for end in ends for place in _PLACES)):
        scans.setdefault(("tcia", int(found.fields["number"])), found.path)
    for found in find(folder, *(f"{place}img<number:\\d{{4}}>{{volume}}" for place in _PLACES)):
        of_tcia = only_tcia or "tcia" in found.path.parent.name.lower()
        scans.setdefault(("tcia" if of_tcia else "btcv", int(found.fields["number"])), found.path)
    return scans
