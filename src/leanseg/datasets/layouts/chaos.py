"""The layout of CHAOS, the challenge on abdominal organs in CT and MR: DICOM and PNG slices.

    CT/<n>/DICOM_anon/*.dcm             CT/<n>/Ground/*.png               liver
    MR/<n>/T2SPIR/DICOM_anon/*.dcm      MR/<n>/T2SPIR/Ground/*.png        liver, kidneys, spleen
    MR/<n>/T1DUAL/DICOM_anon/InPhase/*.dcm, OutPhase/*.dcm    MR/<n>/T1DUAL/Ground/*.png

Kavur et al., "CHAOS Challenge", Medical Image Analysis 69, 2021; https://zenodo.org/records/3431873.

CT and MR share neither channel nor labels, so one folder is one of three datasets. The layout
"chaos" reads CT, or the T2-SPIR scans of MR; "chaos-t1" reads the T1-DUAL scans of MR with the
in-phase and the out-of-phase image as two channels, which were taken in one acquisition and share
one ground truth. Give the folder CT or MR, a folder that holds only one of the two (Train_Sets and
Test_Sets may lie between), or the folder or zip file of a single patient. Test sets come without
Ground: their cases have no labels.

A mask belongs to the DICOM file of the same name (MR), or of the same place in the order of names
(CT). In CT that is from head to feet: in set 3 the first file lies highest, and the pictures lie on
the published NIfTI ground truth, voxel for voxel, in this order only. Pictures are not mirrored:
their rows and columns are those of the DICOM files. The slice thickness in the headers is not the
step between slices; positions tell it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.assemble import dataset_of
from leanseg.datasets.layouts.patterns import Found, find
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError

_SETS = "<set:(CHAOS_)?(Train|Test)_Sets>/"
_MR_LABELS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
# Published grey values 63, 126, 189, 252, each with the range around it that counts as it.
_MR_GREYS = {"values": {"1": [55, 70], "2": [110, 135], "3": [175, 200], "4": [240, 255]}}


@dataclass(frozen=True)
class Part:
    """One of the datasets in CHAOS.

    Attributes:
        layout: Name in the registry.
        modality: The folder CT or MR.
        prefix: Begins the case names.
        sequence: Folder within a patient's folder; "" for CT.
        channels: Channel name to folder within DICOM_anon.
        labels: Label name to value.
    """

    layout: str
    modality: str
    prefix: str
    sequence: str
    channels: Mapping[str, str]
    labels: Mapping[str, int]

    def scans(self, folder: Path) -> list[Found]:
        """The folders DICOM_anon of all patients in `folder`, or of the one that it is."""
        inside = f"{self.sequence}/DICOM_anon/".removeprefix("/")
        places = (f"{self.modality}/", "", f"{_SETS}{self.modality}/", _SETS)
        if folder.name in ("T2SPIR", "T1DUAL"):
            # Half a patient: its DICOM_anon would pass for that of CT.
            return []
        return find(folder, inside, *(f"{place}<number:\\d+>/{inside}" for place in places))

    def case(self, scan: Found) -> Case:
        """The case whose DICOM_anon was found."""
        images = [scan.path / channel for channel in self.channels.values()]
        masks, labels = scan.path.with_name("Ground"), []
        if masks.is_dir():
            whole = self.modality == "CT"
            source = VolumeSource(masks, "slices", {} if whole else _MR_GREYS)
            labels = [LabelPart(source, value=1 if whole else None)]
        patient = masks.parent.parent if self.sequence else masks.parent
        number = scan.fields.get("number", patient.resolve().name)
        if not number.isdigit():
            # A patient's folder by itself may be called anything, such as an unpacked zip file.
            return Case(images, labels, number)
        metadata = {"patient": f"{self.modality} {number}"}
        return Case(images, labels, f"{self.prefix}_{int(number):02d}", metadata=metadata)


CT = Part("chaos", "CT", "ct", "", {"CT": ""}, {"liver": 1})
T2 = Part("chaos", "MR", "mr_t2", "T2SPIR", {"T2-SPIR": ""}, _MR_LABELS)
_T1_CHANNELS = {"T1 in-phase": "InPhase", "T1 out-of-phase": "OutPhase"}
T1 = Part("chaos-t1", "MR", "mr_t1", "T1DUAL", _T1_CHANNELS, _MR_LABELS)


class _Layout:
    """CHAOS, restricted to some of its parts."""

    def __init__(self, *parts: Part, recognised: bool = True) -> None:
        self._parts = parts
        self._recognised = recognised

    def recognises(self, folder: Path) -> bool:
        """Whether there are patients of one of the parts; never for a layout to be named."""
        return self._recognised and any(part.scans(folder) for part in self._parts)

    def read(self, folder: Path) -> Dataset:
        """The dataset in CT, in MR, in a folder above one of them, or of one patient.

        Raises:
            DatasetError: If there is none, or both CT and MR are there.
        """
        found = [(part, scans) for part in self._parts if (scans := part.scans(folder))]
        if not found:
            msg = f"{folder}: no CHAOS patients here, such as CT/1/DICOM_anon or MR/1/T2SPIR"
            raise DatasetError(f"{msg}; give the folder CT or the folder MR")
        if len(found) > 1:
            raise DatasetError(
                f"{folder}: holds CT and MR of CHAOS, which share neither channels nor labels; "
                "give the folder CT or the folder MR in it"
            )
        ((part, scans),) = found
        cases = [part.case(scan) for scan in scans]
        return dataset_of(folder, part.layout, cases, part.labels, tuple(part.channels))


ct_or_t2 = _Layout(CT, T2)
t1 = _Layout(T1, recognised=False)
