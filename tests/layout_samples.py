"""One small dataset written in each layout, with nibabel and SimpleITK alone.

The truth is in `CASES`: two scans with their label maps. Every writer puts both into a folder in
its layout; what a layout cannot say (KiTS19 has names of its own) is in `EXPECTED`.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

LIVER, SPLEEN = 1, 2
# Not symmetric in any axis, LPS, with an offset: a turned or mirrored result is another one.
AFFINE = np.array(
    [[-0.75, 0, 0, 90.5], [0, -0.75, 0, 120.25], [0, 0, 2.5, -60], [0, 0, 0, 1]], dtype=float
)


def _case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 1500, (7, 6, 5)).astype(np.int16)
    label = np.zeros((7, 6, 5), np.uint8)
    label[1:4, 1:5, 1:3] = LIVER
    label[3:6, 2:4, 2 + seed % 2 :] = SPLEEN
    return image, label


CASES = {"10000100_1_CTce_ThAb": _case(0), "10000104_1_CTce_ThAb": _case(1)}


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write a volume; the suffix chooses the library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" in path.name:
        nib.save(nib.Nifti1Image(array, affine), path)
        return path
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(path))
    return path


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def decathlon(folder: Path) -> None:
    for name, (image, label) in CASES.items():
        save(folder / f"imagesTr/{name}.nii.gz", image)
        save(folder / f"labelsTr/{name}.nii.gz", label)
    training = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in CASES
    ]
    write_json(
        folder / "dataset.json",
        {
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "liver", "2": "spleen"},
            "training": training,
            "test": [],
        },
    )


def nnunet(folder: Path, ending: str = ".nii.gz", **listing: object) -> None:
    for name, (image, label) in CASES.items():
        save(folder / f"imagesTr/{name}_0000{ending}", image)
        save(folder / f"labelsTr/{name}{ending}", label)
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": len(CASES),
        "file_ending": ending,
    }
    write_json(folder / "dataset.json", described | listing)
    write_json(folder / "splits_final.json", [{"train": list(CASES), "val": []}])


def slices_first(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels as KiTS19 stores them: from the head down, then rows, then columns."""
    turned = array.transpose(2, 1, 0)[::-1]
    change = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, array.shape[2] - 1], [0, 0, 0, 1]])
    return turned, affine @ change


def kits19(folder: Path) -> None:
    for number, (image, label) in enumerate(CASES.values()):
        for name, array in (("imaging", image), ("segmentation", label)):
            save(folder / f"case_{number:05d}/{name}.nii.gz", *slices_first(array, AFFINE))
    (folder / "LICENSE").write_text("x")
    write_json(folder / "kits.json", [])


def visceral(folder: Path) -> None:
    for name, (image, label) in CASES.items():
        save(folder / f"Volumes/{name}.nii.gz", image)
        for organ, value in ((58, LIVER), (86, SPLEEN)):
            mask = (label == value).astype(np.uint8)
            save(folder / f"Segmentations/{name}_{organ}_5.nii.gz", mask)
        (folder / "Landmarks").mkdir(exist_ok=True)
        (folder / f"Landmarks/{name}_LMannotations.txt").write_text("x")


def bids(folder: Path) -> None:
    write_json(folder / "dataset_description.json", {"Name": "Toy", "BIDSVersion": "1.9.0"})
    (folder / "participants.tsv").write_text("participant_id\tage\nsub-01\t50\n")
    for number, (image, label) in enumerate(CASES.values(), start=1):
        stem = f"sub-{number:02d}_ses-a"
        place = f"sub-{number:02d}/ses-a/ct"
        save(folder / place / f"{stem}_CT.nii.gz", image)
        save(folder / "derivatives/manual" / place / f"{stem}_dseg.nii.gz", label)
        write_json(folder / place / f"{stem}_CT.json", {})
    table = "index\tname\tcolor\n0\tbackground\t#000\n1\tliver\t#f00\n2\tspleen\t#0f0\n"
    (folder / "derivatives/manual/dseg.tsv").write_text(table)


def table(folder: Path) -> None:
    rows = []
    for number, (name, (image, label)) in enumerate(CASES.items()):
        save(folder / f"scans of {number}/a.nii.gz", image)
        save(folder / f"drawn/{number}.nii.gz", label)
        rows.append([name, f"scans of {number}/a.nii.gz", f"drawn/{number}.nii.gz", f"p{number}"])
    with (folder / "listing.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["case", "image", "label", "patient"], *rows])
    write_json(folder / "labels.json", {"labels": {"1": "liver", "2": "spleen"}})


def casefolders(folder: Path) -> None:
    for name, (image, label) in CASES.items():
        save(folder / name / "ct.nii.gz", image)
        save(folder / name / "labels.nii.gz", label)
        write_json(folder / name / "labels.json", {"labels": {"1": "liver", "2": "spleen"}})


def plain(folder: Path) -> None:
    for name, (image, label) in CASES.items():
        save(folder / f"images/{name}.nii.gz", image)
        save(folder / f"labels/{name}.nii.gz", label)
    names = {"labels": {"1": "liver", "2": "spleen"}, "channels": ["CT"]}
    write_json(folder / "labels.json", names)


WRITERS = {
    writer.__name__: writer
    for writer in (decathlon, nnunet, kits19, visceral, bids, table, casefolders, plain)
}
# Case names, and label names where they are not liver and spleen.
NAMES = {"kits19": ["case_00000", "case_00001"], "bids": ["sub-01_ses-a", "sub-02_ses-a"]}
LABELS = {"kits19": {"kidney": 1, "tumour": 2}, "visceral": {"liver": 3, "spleen": 4}}


def add_junk(folder: Path) -> None:
    """What computers and people leave in folders."""
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        (place / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (place / "._ct.nii.gz").write_bytes(b"\0\5\x16\7")
        (place / "Thumbs.db").write_bytes(b"\0")
        (place / "notes.txt").write_text("seen on Tuesday")
    (folder / "__MACOSX/images").mkdir(parents=True)
    (folder / "__MACOSX/images/._a.nii.gz").write_bytes(b"\0")
    (folder / "results.csv").write_text("case,dice\na,0.9\n")
    (folder / ".git").mkdir()
    (folder / "sub-empty").mkdir()


def empty_volumes(folder: Path) -> None:
    """Take the content out of every volume file, so that whoever reads one fails."""
    for path in folder.rglob("*.nii.gz"):
        if not path.name.startswith("."):
            os.truncate(path, 0)
