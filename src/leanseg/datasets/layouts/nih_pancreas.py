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

from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.assemble import dataset_of
from leanseg.datasets.layouts.patterns import by_name, find
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError

WITHDRAWN = frozenset(("0025", "0070"))
_SCANS = tuple(
    f"{place}PANCREAS_<case:\\d{{4}}>{kind}" for place in ("", "*/") for kind in ("/", "{volume}")
)
_LABELS = tuple(
    f"{place}TCIA_pancreas_labels*/label<case:\\d{{4}}>{{volume}}" for place in ("", "*/")
)
_OTHER_LABELS = ("*label*/", "*/*label*/")


def recognises(folder: Path) -> bool:
    """Whether scans PANCREAS_<n> lie here with the folder of label maps, or as DICOM alone."""
    scans = find(folder, *_SCANS)
    if scans and find(folder, *_LABELS):
        return True
    # Converted scans beside other labels are what the plain layouts are for.
    return any(scan.path.is_dir() for scan in scans) and not find(folder, *_OTHER_LABELS)


def read(folder: Path) -> Dataset:
    """The dataset in a folder with scans and, perhaps, the folder of label maps.

    Raises:
        DatasetError: If there are no scans, or a label map has none.
    """
    scans = by_name(((f.fields["case"], f.path) for f in find(folder, *_SCANS)), "scans")
    labels = by_name(((f.fields["case"], f.path) for f in find(folder, *_LABELS)), "label maps")
    for number in labels.keys() - scans.keys() - WITHDRAWN:
        label = labels[number]
        msg = f"{label}: no scan PANCREAS_{number} in {folder}; add it, or remove the label"
        raise DatasetError(msg)
    kept = [number for number in scans if number not in WITHDRAWN]
    cases = [_case(number, scans[number], labels.get(number)) for number in kept]
    return dataset_of(folder, "nih-pancreas", cases, {"pancreas": 1})


def _case(number: str, scan: Path, label: Path | None) -> Case:
    parts = []
    if label is not None:
        source = VolumeSource(label, "companion", {"slices": "instances"})
        parts = [LabelPart(source, value=1)]
    return Case(scan, parts, f"PANCREAS_{number}", metadata={"patient": number})
