"""Public datasets that leanseg reads as they lie: where they come from, and how they must lie.

Nothing is downloaded. Counts and licences are those that the sources give, at the time of writing;
"see the home page" stands where a source could not be confirmed or terms are signed one by one.
Read the terms before using a dataset: the licence of a copy found elsewhere may not be the owner's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from leanseg.errors import DatasetError

_SEE_HOME = "see the home page"


@dataclass(frozen=True)
class PublicDataset:
    """One public dataset.

    Attributes:
        name: How `leanseg datasets NAME` calls it.
        title: Its own name.
        home: Home page.
        licence: As the source states it.
        modality: "CT", "MR" or both.
        cases: How many, labelled and not.
        organs: What is annotated.
        layout: Registered name of the layout that reads it.
        tree: The folders and files as leanseg expects them, one per line.
        notes: What to know before using it.
    """

    name: str
    title: str
    home: str
    licence: str
    modality: str
    cases: str
    organs: tuple[str, ...]
    layout: str
    tree: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        return asdict(self)


_THIRTEEN = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach"),
    *("aorta", "inferior vena cava", "portal and splenic vein", "pancreas"),
    *("right adrenal gland", "left adrenal gland"),
)

CATALOGUE: tuple[PublicDataset, ...] = (
    PublicDataset(
        name="msd",
        title="Medical Segmentation Decathlon",
        home="http://medicaldecathlon.com",
        licence="CC BY-SA 4.0",
        modality="CT, MR",
        cases="2,633 scans in ten tasks",
        organs=(
            *("brain tumor", "left atrium", "liver", "hippocampus", "prostate", "lung tumor"),
            *("pancreas", "hepatic vessels", "spleen", "colon cancer"),
        ),
        layout="decathlon",
        tree=(
            "Task07_Pancreas/dataset.json",
            "Task07_Pancreas/imagesTr/pancreas_001.nii.gz",
            "Task07_Pancreas/labelsTr/pancreas_001.nii.gz",
            "Task07_Pancreas/imagesTs/pancreas_002.nii.gz",
        ),
        notes=(
            "One task is one dataset: give its folder, such as Task07_Pancreas.",
            "Labelled and unlabelled cases: Task01 484 and 266, Task02 20 and 10, Task03 131 and "
            "70, Task04 263 and 131; Task07 has 281 labelled.",
            "Task03 is LiTS: do not train on one and test on the other.",
        ),
    ),
    PublicDataset(
        name="kits19",
        title="KiTS19, kidney and kidney tumor segmentation challenge 2019",
        home="https://kits19.grand-challenge.org",
        licence="CC BY-NC-SA 4.0",
        modality="CT",
        cases="210 labelled, 90 without labels",
        organs=("kidney", "kidney tumor"),
        layout="kits19",
        tree=("case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz"),
        notes=(
            "Arrays are stored slices first; leanseg reads the affine, so nothing is converted.",
        ),
    ),
    PublicDataset(
        name="chaos",
        title="CHAOS, combined healthy abdominal organ segmentation",
        home="https://chaos.grand-challenge.org",
        licence="CC BY-SA",
        modality="CT, MR",
        cases="CT: 20 labelled, 20 without; MR: 20 labelled, 20 without",
        organs=("CT: liver", "MR: liver", "right kidney", "left kidney", "spleen"),
        layout="chaos",
        tree=(
            "CT/1/DICOM_anon/*.dcm",
            "CT/1/Ground/*.png",
            "MR/1/T2SPIR/DICOM_anon/*.dcm",
            "MR/1/T2SPIR/Ground/*.png",
            "MR/1/T1DUAL/DICOM_anon/{InPhase,OutPhase}/*.dcm",
            "MR/1/T1DUAL/Ground/*.png",
        ),
        notes=(
            "CT and MR share neither channels nor labels: give the folder CT, or the folder MR "
            "(its T2-SPIR scans); the layout chaos-t1 reads T1-DUAL with two channels.",
            "SliceThickness is not the step between slices, and files run from head to feet; "
            "leanseg goes by positions and names.",
        ),
    ),
    PublicDataset(
        name="nih-pancreas",
        title="NIH Pancreas-CT",
        home="https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU",
        licence="CC BY 3.0",
        modality="CT",
        cases="80 labelled",
        organs=("pancreas",),
        layout="nih-pancreas",
        tree=(
            "Pancreas-CT/PANCREAS_0001/<study>/<series>/*.dcm",
            "TCIA_pancreas_labels-02-05-2017/label0001.nii.gz",
        ),
        notes=(
            "Until 2020 there were 82: patients 25 and 70 are copies of patient 2 and left out.",
            "Label files do not have the geometry of the scans; leanseg goes by instance numbers.",
        ),
    ),
    PublicDataset(
        name="tcia43",
        title="Multi-organ abdominal CT reference standard segmentations (Gibson et al.)",
        home="https://zenodo.org/records/1169361",
        licence=_SEE_HOME,
        modality="CT",
        cases="90 labelled: 43 of NIH Pancreas-CT, 47 of BTCV",
        organs=(
            *("spleen", "pancreas", "left kidney", "gallbladder", "esophagus", "liver", "stomach"),
            "duodenum",
        ),
        layout="tcia43",
        tree=(
            "label_tcia_multiorgan/label0002.nii.gz",
            "Pancreas-CT/PANCREAS_0002/<study>/<series>/*.dcm",
            "label_btcv_multiorgan/label0001.nii.gz",
            "img/img0001.nii.gz",
            "cropping.csv",
        ),
        notes=(
            "The record has labels only: scans come from NIH Pancreas-CT and from BTCV.",
            "cropping.csv is optional; where it is, scans and labels are cut to its boxes.",
            "NIH withdrew patient 25, so that 42 of the 43 scans can still be had.",
        ),
    ),
    PublicDataset(
        name="btcv",
        title="Multi-atlas labeling beyond the cranial vault, abdomen",
        home="https://www.synapse.org/#!Synapse:syn3193805",
        licence=f"{_SEE_HOME} (registration)",
        modality="CT",
        cases="30 labelled, 20 without labels",
        organs=_THIRTEEN,
        layout="table",
        tree=("img/img0001.nii.gz", "label/label0001.nii.gz", "dataset.csv"),
        notes=(
            "Scans and labels have different names, so a table pairs them: dataset.csv with the "
            "columns case, image and label, one row a case.",
        ),
    ),
    PublicDataset(
        name="visceral",
        title="VISCERAL Anatomy3",
        home="https://visceral.eu/closed-benchmarks/anatomy3/",
        licence=f"{_SEE_HOME} (signed agreement)",
        modality="CT, MR",
        cases=_SEE_HOME,
        organs=("about 20 structures, one file each",),
        layout="visceral",
        tree=(
            "Volumes/10000100_1_CTce_ThAb.nii.gz",
            "Segmentations/10000100_1_CTce_ThAb_58_6.nii.gz",
        ),
        notes=("An organ without a file is not annotated in that scan.",),
    ),
    PublicDataset(
        name="3d-ircadb",
        title="3D-IRCADb-01",
        home="https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/",
        licence="CC BY-NC-ND 3.0",
        modality="CT",
        cases="20 labelled",
        organs=("liver", "liver lesion", "and others that differ from case to case"),
        layout="3d-ircadb",
        tree=(
            "3Dircadb1.1/PATIENT_DICOM/image_0 (or PATIENT_DICOM.zip)",
            "3Dircadb1.1/MASKS_DICOM/liver/image_0 (or MASKS_DICOM.zip)",
        ),
        notes=(
            "15 of the 20 patients have liver tumors.",
            "The folder tumor of patient 7 is an adrenal tumor, metastasectomie of patient 14 the "
            "cavity left by surgery: neither is a liver lesion here.",
        ),
    ),
    PublicDataset(
        name="lits",
        title="LiTS, liver tumor segmentation challenge",
        home="https://competitions.codalab.org/competitions/17094",
        licence=_SEE_HOME,
        modality="CT",
        cases="131 labelled, 70 without labels",
        organs=("liver", "liver tumor"),
        layout="decathlon",
        tree=("Task03_Liver/dataset.json", "Task03_Liver/imagesTr/liver_0.nii.gz"),
        notes=(
            "The same scans are Task03 of the Medical Segmentation Decathlon, under CC BY-SA 4.0.",
            "It contains the scans of 3D-IRCADb-01: do not train on one and test on the other.",
        ),
    ),
    PublicDataset(
        name="amos22",
        title="AMOS, abdominal multi-organ benchmark",
        home="https://zenodo.org/records/7262581",
        licence=_SEE_HOME,
        modality="CT, MR",
        cases="500 CT and 100 MR, labels of the test scans not published",
        organs=(
            *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver"),
            *("stomach", "aorta", "inferior vena cava", "pancreas", "right adrenal gland"),
            *("left adrenal gland", "duodenum", "bladder", "prostate or uterus"),
        ),
        layout="decathlon",
        tree=(
            "amos22/dataset.json",
            "amos22/imagesTr/amos_0001.nii.gz",
            "amos22/labelsTr/amos_0001.nii.gz",
        ),
        notes=("Scans numbered below 500 are CT, the others MR; list one kind at a time.",),
    ),
    PublicDataset(
        name="brats2018",
        title="BraTS 2018, multimodal brain tumor segmentation challenge",
        home="https://www.med.upenn.edu/cbica/brats2018.html",
        licence=f"{_SEE_HOME} (registration)",
        modality="MR",
        cases=_SEE_HOME,
        organs=("non-enhancing tumor core", "edema", "enhancing tumor"),
        layout="table",
        tree=(
            "HGG/<case>/<case>_flair.nii.gz (and _t1, _t1ce, _t2)",
            "HGG/<case>/<case>_seg.nii.gz",
            "dataset.csv",
        ),
        notes=(
            "Pair the files in a table, dataset.csv, with the columns case, image_FLAIR, "
            "image_T1w, image_T1gd, image_T2w and label.",
            "Labels are 1, 2 and 4. Task01 of the Medical Segmentation Decathlon has cases of the "
            "challenges of 2016 and 2017 in a layout that needs no table, with 3 instead of 4.",
        ),
    ),
    PublicDataset(
        name="totalsegmentator",
        title="TotalSegmentator CT dataset",
        home="https://github.com/wasserth/TotalSegmentator",
        licence="CC BY 4.0",
        modality="CT",
        cases="1,228 labelled",
        organs=("117 structures, one file each",),
        layout="casefolders",
        tree=("s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz"),
        notes=("Labels were made by a network and corrected by hand, not drawn from nothing.",),
    ),
)


def public_dataset(name: str) -> PublicDataset:
    """The dataset of that name, upper and lower case alike.

    Raises:
        DatasetError: If there is none.
    """
    for dataset in CATALOGUE:
        if dataset.name == name.lower():
            return dataset
    known = ", ".join(dataset.name for dataset in CATALOGUE)
    msg = f"no public dataset is called {name!r}; choose one of {known}"
    raise DatasetError(msg)
