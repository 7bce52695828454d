"""The layout of 3D-IRCADb-01: a DICOM series a patient, and a series of masks a structure.

    3Dircadb1.<n>/PATIENT_DICOM/image_0, image_1, ...
    3Dircadb1.<n>/MASKS_DICOM/<structure>/image_0, ...          0 and 255

Soler et al., IRCAD 2010, https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/.
The zip files inside, PATIENT_DICOM.zip and MASKS_DICOM.zip, are read where they are not unpacked.
LABELLED_DICOM holds the same masks once more and is not read. A mask belongs to the file of the
same name in PATIENT_DICOM.

Structures were named by hand. Numbers and plurals are dropped (livertumor01, livertumors -> "liver
lesion"; portalvein1 -> "portal vein"), French words translated (liverkyst -> "liver cyst",
leftsurrenalgland -> "left adrenal gland"), the rest is kept as written. Three are traps: "tumor" of
patient 7 is an adrenal tumor outside the liver, "metastasectomie" of patient 14 is the cavity left
by surgery, and "kidneys" and "lungs" do not tell the sides; none of them becomes a lesion of the
liver or a left or right organ.

A structure without a folder is not annotated in that case. The exception is the liver lesion: the
lesions of every liver were marked, so a case with a liver and no lesion folder has no lesion.

Where masks overlap the later in this order lies on top: skin; bone; organs; vessels and ducts;
cysts, tumors and what surgery left. Within a group the order of names decides.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts.listing import sorted_unique
from leanseg.errors import DatasetError

PATIENT, MASKS = "PATIENT_DICOM", "MASKS_DICOM"
LIVER, LESION = "liver", "liver lesion"
_NUMBER = re.compile(r"(\d+)$")

# Structures as written, without number, to their names; in the order in which they lie on each
# other, lowest first.
_LAYERS: tuple[dict[str, str], ...] = (
    {"skin": "skin"},
    {"bone": "bone"},
    {
        "bladder": "bladder",
        "colon": "colon",
        "duodenum": "duodenum",
        "gallbladder": "gallbladder",
        "heart": "heart",
        "hyperplasie": "hyperplasia",
        "kidneys": "kidneys",
        "leftkidney": "left kidney",
        "leftlung": "left lung",
        "leftsurrenalgland": "left adrenal gland",
        "liver": LIVER,
        "lungs": "lungs",
        "lymphnodes": "lymph nodes",
        "pancreas": "pancreas",
        "rightkidney": "right kidney",
        "rightlung": "right lung",
        "rightsurrenalgland": "right adrenal gland",
        "sigmoid": "sigmoid",
        "smallintestin": "small intestine",
        "spleen": "spleen",
        "stomach": "stomach",
        "stomachoesophage": "stomach and esophagus",
        "surrenalgland": "adrenal gland",
        "uterus": "uterus",
    },
    {
        "aorta": "aorta",
        "artery": "artery",
        "biliarysystem": "biliary system",
        "portalvein": "portal vein",
        "venacava": "vena cava",
        "venoussystem": "venous system",
    },
    {
        "leftsurretumor": "left adrenal tumor",
        "livercyst": "liver cyst",
        "liverkyst": "liver cyst",
        "liverkyste": "liver cyst",
        "livertumor": LESION,
        "livertumors": LESION,
        "metal": "metal",
        "metastasectomie": "metastasectomy cavity",
        "rightsurretumor": "right adrenal tumor",
        "stones": "stones",
        "tumor": "adrenal tumor",
    },
)
_NAMES = {written: name for layer in _LAYERS for written, name in layer.items()}
_HEIGHT = {name: height for height, layer in enumerate(_LAYERS) for name in layer.values()}
# Between organs and vessels, for structures that nobody foresaw.
_UNKNOWN_HEIGHT = 2.5


@dataclass(frozen=True)
class _Patient:
    number: str
    scan: Path
    masks: tuple[tuple[str, Path], ...]


def recognises(folder: Path) -> bool:
    """Whether a PATIENT_DICOM lies here with its masks, or in the folders one level below."""
    return bool(_patients(folder))


def read(folder: Path) -> Dataset:
    """The dataset of all patients here, or of the one whose folder this is.

    Raises:
        DatasetError: If there is none, or a zip file inside is damaged.
    """
    patients = [_read_patient(place) for place in _patients(folder)]
    if not patients:
        msg = f"{folder}: no patient with {PATIENT} and {MASKS} here; give the folder above"
        raise DatasetError(msg)
    names = {unified(written) for patient in patients for written, _ in patient.masks}
    # Known structures keep their value in every selection of patients; others follow.
    ordered = [*dict.fromkeys(_NAMES.values()), *sorted(names - set(_NAMES.values()))]
    labels = {name: value for value, name in enumerate(_first(ordered), 1) if name in names}
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="3d-ircadb",
        cases=sorted_unique(folder, [_case(patient, labels) for patient in patients]),
        labels=labels,
        channels=("CT",),
    )


def unified(written: str) -> str:
    """The name of a structure from that of its folder, as written by hand."""
    plain = _NUMBER.sub("", written.strip().lower().replace("_", "").replace(" ", ""))
    return _NAMES.get(plain, plain or written)


def _first(names: list[str]) -> list[str]:
    """Liver and its lesion first, as 1 and 2, as in other datasets."""
    return [LIVER, LESION, *(name for name in names if name not in (LIVER, LESION))]


def _patients(folder: Path) -> list[Path]:
    places = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())]
    places += [inner for place in places[1:] for inner in place.iterdir() if inner.is_dir()]
    return [
        place
        for place in places
        if not place.name.startswith((".", "__MACOSX"))
        and _content(place, PATIENT)
        and _content(place, MASKS)
    ]


def _content(place: Path, name: str) -> Path | None:
    """A folder, or the zip file of that name."""
    if (place / name).is_dir():
        return place / name
    archive = place / f"{name}.zip"
    return archive if archive.is_file() else None


def _read_patient(place: Path) -> _Patient:
    scan, masks = _content(place, PATIENT), _content(place, MASKS)
    assert scan is not None and masks is not None  # found by both
    number = _NUMBER.search(place.resolve().name)
    return _Patient(number[1] if number else "", scan, tuple(_structures(masks)))


def _structures(masks: Path) -> list[tuple[str, Path]]:
    """Names and places of the folders of masks, without unpacking a zip file."""
    if masks.is_dir():
        found = [entry for entry in masks.iterdir() if entry.is_dir()]
        return [(entry.name, entry) for entry in sorted(found) if not entry.name.startswith(".")]
    try:
        with zipfile.ZipFile(masks) as archive:
            files = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError) as error:
        msg = f"{masks}: the zip file is damaged ({error}); copy it again"
        raise DatasetError(msg) from error
    folders = {
        file.parent
        for file in files
        if len(file.parts) > 1
        and not any(part.startswith((".", "__MACOSX")) for part in file.parts)
    }
    return [(folder.name, masks / folder) for folder in sorted(folders)]


def _case(patient: _Patient, labels: dict[str, int]) -> Case:
    def height(structure: tuple[str, Path]) -> tuple[float, str, str]:
        name = unified(structure[0])
        return _HEIGHT.get(name, _UNKNOWN_HEIGHT), name, structure[0]

    parts = tuple(
        LabelPart(Source(place, "slices"), value=labels[unified(written)])
        for written, place in sorted(patient.masks, key=height)
    )
    annotated = {unified(written) for written, _ in patient.masks}
    if LIVER in annotated and LESION in labels:
        annotated.add(LESION)
    known = bool(patient.number)
    return Case(
        f"ircadb_{int(patient.number):02d}" if known else "ircadb",
        (Source(patient.scan),),
        parts,
        frozenset(annotated),
        {"patient": patient.number} if known else {},
    )
