"""The layout of 3D-IRCADb-01: a DICOM series a patient, and a series of masks a structure.

    3Dircadb1.<n>/PATIENT_DICOM/image_0, image_1, ...
    3Dircadb1.<n>/MASKS_DICOM/<structure>/image_0, ...          0 and 255

Soler et al., IRCAD 2010, https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/.
The zip files inside, PATIENT_DICOM.zip and MASKS_DICOM.zip, are read where they are not unpacked.
LABELLED_DICOM holds the same masks once more and is not read. A mask belongs to the file of the
same name in PATIENT_DICOM.

Structures were named by hand. Numbers and plurals are dropped (livertumor01, livertumors -> "liver
lesion"; portalvein1 -> "portal vein"), French words translated (liverkyst -> "liver cyst",
leftsurrenalgland -> "left adrenal gland"), the rest is kept as written; ircadb.csv
lists them. Three are traps: "tumor" of patient 7 is an adrenal tumor outside the liver,
"metastasectomie" of patient 14 is the cavity left by surgery, and "kidneys" and "lungs" do not
tell the sides; none of them becomes a lesion of the liver or a left or right organ.

A structure without a folder is not annotated in that case. The exception is the liver lesion: the
lesions of every liver were marked, so a case with a liver and no lesion folder has no lesion.

Where masks overlap the later in this order lies on top: skin; bone; organs; vessels and ducts;
cysts, tumors and what surgery left. Within a group the order of names decides.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from leanseg.datasets.case import Dataset
from leanseg.datasets.layouts.assemble import CaseFiles, assembled
from leanseg.datasets.layouts.patterns import entries, find
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.files import packaged_rows

LIVER, LESION = "liver", "liver lesion"
_SCANS = tuple(
    f"{place}PATIENT_DICOM{kind}" for place in ("", "*/", "*/*/") for kind in ("/", ".zip")
)
_NUMBER = re.compile(r"(\d+)$")
# Between organs and vessels, for structures that nobody foresaw.
_UNKNOWN_LAYER = 2.5


def recognises(folder: Path) -> bool:
    """Whether a PATIENT_DICOM lies here with its masks, or in the folders one level below."""
    return bool(_patients(folder))


def read(folder: Path) -> Dataset:
    """The dataset of all patients here, or of the one whose folder this is.

    Raises:
        DatasetError: If there is none, or a zip file inside is damaged.
    """
    structures = {scan: _structures(masks) for scan, masks in _patients(folder).items()}
    names = {unified(written) for found in structures.values() for written in found}
    # Known structures keep their value in every selection of patients; others follow. Liver and
    # its lesion come first, as 1 and 2, as in other datasets.
    known = [name for _, name in _known().values()]
    ordered = dict.fromkeys([LIVER, LESION, *known, *sorted(names)])
    labels = {name: value for value, name in enumerate(ordered, 1) if name in names}
    cases = [_case(scan, found, labels) for scan, found in structures.items()]
    return assembled(folder, "3d-ircadb", cases, labels)


@cache
def _known() -> dict[str, tuple[float, str]]:
    """Structures as written, without number, to the layer that they lie in and their names."""
    rows = packaged_rows("leanseg.datasets.layouts", "ircadb.csv")
    return {row["written"]: (float(row["layer"]), row["name"]) for row in rows}


def unified(written: str) -> str:
    """The name of a structure from that of its folder, as written by hand."""
    plain = _NUMBER.sub("", written.strip().lower().replace("_", "").replace(" ", ""))
    return _known().get(plain, (0, plain or written))[1]


def _patients(folder: Path) -> dict[Path, Path]:
    """Where the scan of each patient lies, and its masks: folders, or zip files."""
    found: dict[Path, Path] = {}
    for scan in find(folder, *_SCANS):
        place = scan.path.parent
        masks = [*find(place, "MASKS_DICOM/"), *find(place, "MASKS_DICOM.zip")]
        if masks and place not in {known.parent for known in found}:
            found[scan.path] = masks[0].path
    return found


def _structures(masks: Path) -> dict[str, Path]:
    """Names and places of the folders of masks, without unpacking a zip file."""
    if masks.is_dir():
        return {entry.name: entry for entry in entries(masks) if entry.is_dir()}
    try:
        with zipfile.ZipFile(masks) as archive:
            files = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
    except Exception as error:  # zipfile fails in any way over damage
        raise DatasetError(f"{masks}: the zip file is damaged ({error}); copy it again") from error
    shown = [file for file in files if not any(part.startswith((".", "__")) for part in file.parts)]
    return {file.parent.name: masks / file.parent for file in shown if len(file.parts) > 1}


def _case(scan: Path, structures: Mapping[str, Path], labels: Mapping[str, int]) -> CaseFiles:
    layers = {name: layer for layer, name in _known().values()}

    def height(mask: tuple[str, str]) -> tuple[float, str, str]:
        return layers.get(mask[0], _UNKNOWN_LAYER), *mask

    masks = sorted(((unified(written), written) for written in structures), key=height)
    number = _NUMBER.search(scan.parent.resolve().name)
    case = CaseFiles("ircadb", {"CT": scan}, layered=True)
    case.masks = [(name, VolumeSource(structures[written], "slices")) for name, written in masks]
    case.annotated = {name for name, _ in masks}
    if LIVER in case.annotated and LESION in labels:
        case.annotated.add(LESION)
    if number is not None:
        case.name, case.metadata = f"ircadb_{int(number[1]):02d}", {"patient": number[1]}
    return case
