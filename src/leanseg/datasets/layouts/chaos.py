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

from dataclasses import dataclass
from pathlib import Path

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts.listing import sorted_unique
from leanseg.errors import DatasetError

IMAGES, MASKS = "DICOM_anon", "Ground"
_SETS = ("Train_Sets", "Test_Sets", "CHAOS_Train_Sets", "CHAOS_Test_Sets")
_SEQUENCES = ("T2SPIR", "T1DUAL")
# Published grey values 63, 126, 189, 252, each with the range around it that counts as it.
_MR_GREYS = {"1": [55, 70], "2": [110, 135], "3": [175, 200], "4": [240, 255]}
_MR_LABELS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}


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
        greys: The `values` of the slices reader; None where anything above zero is label 1.
    """

    layout: str
    modality: str
    prefix: str
    sequence: str
    channels: dict[str, str]
    labels: dict[str, int]
    greys: dict[str, list[int]] | None

    def scans(self, patient: Path) -> Path:
        """Where the DICOM files of a patient lie."""
        return patient / self.sequence / IMAGES


CT = Part("chaos", "CT", "ct", "", {"CT": ""}, {"liver": 1}, None)
T2 = Part("chaos", "MR", "mr_t2", "T2SPIR", {"T2-SPIR": ""}, _MR_LABELS, _MR_GREYS)
T1 = Part(
    "chaos-t1",
    "MR",
    "mr_t1",
    "T1DUAL",
    {"T1 in-phase": "InPhase", "T1 out-of-phase": "OutPhase"},
    _MR_LABELS,
    _MR_GREYS,
)


class _Layout:
    """CHAOS, restricted to some of its parts."""

    def __init__(self, *parts: Part, recognised: bool = True) -> None:
        self._parts = parts
        self._recognised = recognised

    def recognises(self, folder: Path) -> bool:
        """Whether there are patients of one of the parts; never for a layout to be named."""
        return self._recognised and any(_patients(folder, part) for part in self._parts)

    def read(self, folder: Path) -> Dataset:
        """The dataset in CT, in MR, in a folder above one of them, or of one patient.

        Raises:
            DatasetError: If there is none, or both CT and MR are there.
        """
        found = [(part, _patients(folder, part)) for part in self._parts]
        found = [(part, patients) for part, patients in found if patients]
        if not found:
            wanted = " or ".join(
                f"{part.modality}/<n>/{part.scans(Path()).as_posix()}" for part in self._parts
            )
            msg = f"{folder}: no CHAOS patients here; expected folders such as {wanted}"
            raise DatasetError(msg)
        if len(found) > 1:
            msg = (
                f"{folder}: holds CT and MR of CHAOS, which share neither channels nor labels; "
                "give the folder CT or the folder MR in it"
            )
            raise DatasetError(msg)
        ((part, patients),) = found
        return Dataset(
            name=folder.resolve().name,
            root=folder,
            layout=part.layout,
            cases=sorted_unique(folder, [_case(patient, part) for patient in patients]),
            labels=part.labels,
            channels=tuple(part.channels),
        )


def _patients(folder: Path, part: Part) -> list[Path]:
    """The folders of patients that have this part, in `folder` or the levels below."""
    if folder.name in _SEQUENCES:
        # Half a patient: its DICOM_anon would pass for that of CT.
        return []
    if part.scans(folder).is_dir():
        return [folder]
    if folder.name in ("CT", "MR"):
        # An MR patient has no DICOM_anon of its own, so the two cannot be confused below here.
        return [patient for patient in _folders(folder) if part.scans(patient).is_dir()]
    places = [folder / part.modality, *(folder / name for name in _SETS)]
    below = [patient for place in places if place.is_dir() for patient in _patients(place, part)]
    if below:
        return below
    # The folder CT or MR under another name: numbered patients.
    numbered = [patient for patient in _folders(folder) if patient.name.isdigit()]
    return [patient for patient in numbered if part.scans(patient).is_dir()]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _case(patient: Path, part: Part) -> Case:
    number = patient.resolve().name
    images = tuple(
        Source(part.scans(patient) / channel if channel else part.scans(patient))
        for channel in part.channels.values()
    )
    masks = patient / part.sequence / MASKS
    labels: tuple[LabelPart, ...] = ()
    if masks.is_dir():
        options = {} if part.greys is None else {"values": part.greys}
        value = 1 if part.greys is None else None
        labels = (LabelPart(Source(masks, "slices", options), value=value),)
    # A patient's folder on its own may be called anything, such as that of an unpacked zip file.
    known = number.isdigit()
    return Case(
        f"{part.prefix}_{int(number):02d}" if known else number,
        images,
        labels,
        metadata={"patient": f"{part.modality} {number}"} if known else {},
    )


ct_or_t2 = _Layout(CT, T2)
t1 = _Layout(T1, recognised=False)
