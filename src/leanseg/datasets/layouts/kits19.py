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

import re
from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.listing import entries
from leanseg.errors import DatasetError

SCAN, SEGMENTATION = "imaging.nii.gz", "segmentation.nii.gz"
LABELS = {"kidney": 1, "tumour": 2}
_CYST = {"cyst": 3}
_CASE = re.compile(r"case_\d{5}")


def recognises(folder: Path) -> bool:
    """Whether there are folders such as case_00000 with a scan or a segmentation, or in data/."""
    return bool(_cases(folder) or _cases(folder / "data"))


def read(folder: Path) -> Dataset:
    """The cases in the folder, or in the `data` folder of the challenge's repository.

    Raises:
        DatasetError: If there is no case.
    """
    found = _cases(folder) or _cases(folder / "data")
    if not found:
        msg = f"{folder}: no folders here such as case_00000 with {SCAN}; give KiTS19's data folder"
        raise DatasetError(msg)
    cases = []
    for path in found:
        segmentation = path / SEGMENTATION
        label = segmentation if segmentation.is_file() else None
        cases.append(Case.of_files(path.name, (path / SCAN,), label, {"patient": path.name}))
    with_cysts = any((path / "instances").is_dir() for path in found)
    return Dataset(
        name=folder.resolve().name,
        root=folder,
        layout="kits19",
        cases=tuple(cases),
        labels={**LABELS, **_CYST} if with_cysts else LABELS,
        channels=("CT",),
    )


def _cases(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in entries(folder)
        if _CASE.fullmatch(path.name)
        and ((path / SCAN).is_file() or (path / SEGMENTATION).is_file())
    ]
