"""KiTS19: kidneys and kidney tumours, a folder for each case.

Heller et al., "The KiTS19 Challenge Data", 2019: `case_00000/{imaging,segmentation}.nii.gz` with
1 kidney and 2 tumour; the last cases have no segmentation. Arrays are stored slices first,
(slices, 512, 512), and their affine says so: the first axis runs to the feet, the second to the
back, the third to the left (IPL). So they are read as they are, and whatever needs axial slices
finds them by the affine. KiTS23, which names its files alike, adds 3 cyst; it is told by the
`instances` folder in its cases.

The segmentations are published without the scans, which a script fetches later. A case whose
scan is not there yet is listed all the same: its label map can be read, and loading the case
fails with the name of the missing file.
"""

from __future__ import annotations

from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.assemble import dataset_of
from leanseg.datasets.layouts.patterns import find

SCAN, SEGMENTATION = "imaging.nii.gz", "segmentation.nii.gz"
LABELS = {"kidney": 1, "tumour": 2}
# The folder itself, or the challenge's repository with its folder `data`.
_CASES = ("case_<case:\\d{5}>", "data/case_<case:\\d{5}>")


def recognises(folder: Path) -> bool:
    """Whether there are folders such as case_00000 with a scan or a segmentation, or in data/."""
    return bool(_folders(folder))


def read(folder: Path) -> Dataset:
    """The cases in the folder, or in the `data` folder of the challenge's repository.

    Raises:
        DatasetError: If there is no case.
    """
    folders = _folders(folder)
    with_cysts = any((path / "instances").is_dir() for path in folders)
    labels = {**LABELS, "cyst": 3} if with_cysts else LABELS
    return dataset_of(folder, "kits19", [_case(path) for path in folders], labels)


def _case(folder: Path) -> Case:
    label = folder / SEGMENTATION
    metadata = {"patient": folder.name}
    return Case(folder / SCAN, label if label.is_file() else None, folder.name, metadata=metadata)


def _folders(folder: Path) -> list[Path]:
    files = find(folder, *(f"{case}/{file}" for case in _CASES for file in (SCAN, SEGMENTATION)))
    return sorted({found.path.parent for found in files})
