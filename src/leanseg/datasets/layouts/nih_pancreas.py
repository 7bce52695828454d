"""The layout of NIH Pancreas-CT: a DICOM series a patient, and a folder of NIfTI label maps.

    Pancreas-CT/PANCREAS_0001/<study>/<series>/*.dcm
    TCIA_pancreas_labels-02-05-2017/label0001.nii.gz

Roth et al., "Data From Pancreas-CT", The Cancer Imaging Archive, 2016,
https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU. Scans converted to files are read too:
PANCREAS_0001.nii.gz, in any folder of scans beside the labels.

The label maps do not have the geometry of the DICOM files. As the public converters of this dataset
agree (OrganSegRSTN, and others who pair slices by file number), label voxel (i, j, k) is column i
and row j of the DICOM file with instance number k + 1, whatever either header says of directions;
this is what is done here. Where scans are files, a label map whose header agrees with its scan
is used as it is; otherwise the directions of both headers are believed and the origins are not, as
nnU-Net's converter of this dataset does. Whether all 80 headers serve for the latter was not
checked here: look at one overlay before training on converted scans.

Patients 25 and 70 were withdrawn in 2020 as copies of the scan of patient 2, cut slightly
differently. They are left out where an older download has them, which leaves 80 cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts.listing import sorted_unique
from leanseg.errors import DatasetError

WITHDRAWN = frozenset((25, 70))
_PATIENT = re.compile(r"PANCREAS_(\d{4})", re.IGNORECASE)
_LABEL = re.compile(r"label(\d{4})", re.IGNORECASE)
_LABEL_FOLDER = re.compile(r"TCIA_pancreas_labels.*", re.IGNORECASE)


def recognises(folder: Path) -> bool:
    """Whether scans PANCREAS_<n> lie here with the folder of label maps, or as DICOM alone."""
    scans = pancreas_scans(folder)
    if _labels(folder):
        return bool(scans)
    # Converted scans beside other labels are what the plain layouts are for.
    return any(scan.is_dir() for scan in scans.values()) and not _other_labels(folder)


def read(folder: Path) -> Dataset:
    """The dataset in a folder with scans and, perhaps, the folder of label maps.

    Raises:
        DatasetError: If there are no scans, or a label map has none.
    """
    scans, labels = pancreas_scans(folder), _labels(folder)
    if not scans:
        msg = f"{folder}: no folder or file called PANCREAS_<4 digits> here; give the folder above"
        raise DatasetError(msg)
    for number, label in labels.items():
        if number not in scans and number not in WITHDRAWN:
            msg = f"{label}: no scan PANCREAS_{number:04d} in {folder}; add it, or remove the label"
            raise DatasetError(msg)
    cases = [
        _case(number, scan, labels.get(number))
        for number, scan in scans.items()
        if number not in WITHDRAWN
    ]
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="nih-pancreas",
        cases=sorted_unique(folder, cases),
        labels={"pancreas": 1},
        channels=("CT",),
    )


def _case(number: int, scan: Path, label: Path | None) -> Case:
    parts: tuple[LabelPart, ...] = ()
    if label is not None:
        parts = (LabelPart(Source(label, "companion", {"slices": "instances"}), value=1),)
    return Case(
        f"PANCREAS_{number:04d}", (Source(scan),), parts, metadata={"patient": f"{number:04d}"}
    )


def pancreas_scans(folder: Path) -> dict[int, Path]:
    """Number of a patient to the folder or file with the scan, here or one folder below."""
    from leanseg.volumes import is_volume_path, volume_stem

    found: dict[int, Path] = {}
    for entry in _entries(folder):
        is_file = is_volume_path(entry)
        match = _PATIENT.fullmatch(volume_stem(entry) if is_file else entry.name)
        if match and (is_file or entry.is_dir()):
            found.setdefault(int(match[1]), entry)
    return found


def label_files(folder: Path) -> dict[int, Path]:
    """Number of a patient to the file label<4 digits> in a folder."""
    from leanseg.volumes import is_volume_path, volume_stem

    found = {}
    for file in sorted(folder.iterdir()):
        match = _LABEL.fullmatch(volume_stem(file)) if is_volume_path(file) else None
        if match and file.is_file():
            found[int(match[1])] = file
    return found


def _labels(folder: Path) -> dict[int, Path]:
    for entry in _entries(folder):
        if entry.is_dir() and _LABEL_FOLDER.fullmatch(entry.name):
            return label_files(entry)
    return {}


def _other_labels(folder: Path) -> bool:
    """Whether label maps lie here that are not of this dataset, which another layout knows."""
    return any(entry.is_dir() and "label" in entry.name.lower() for entry in _entries(folder))


def _entries(folder: Path) -> Iterator[Path]:
    """What is in a folder and in the folders one level below, patients' own folders left out."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        yield entry
        if entry.is_dir() and not _PATIENT.match(entry.name):
            yield from (
                inner for inner in sorted(entry.iterdir()) if not inner.name.startswith(".")
            )
