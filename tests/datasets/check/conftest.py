"""A small healthy dataset, as arrays that a test may break before they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import Dataset, open_dataset

SHAPE = (42, 36, 14)
LABELS = {"liver": 1, "spleen": 2, "left_kidney": 3, "right_kidney": 4, "bladder": 5}
# As most scanners store: first axis to the left, second to the back. World is RAS+ mm.
AFFINE = np.array([[-6.0, 0, 0, 120], [0, -6, 0, 100], [0, 0, 8, -300], [0, 0, 0, 1.0]])
# Centres in RAS+ mm beside the body's middle, and radius.
ORGANS = {
    "liver": ((60, 10, -210), 32),
    "spleen": ((-70, -30, -210), 20),
    "left_kidney": ((-45, -40, -235), 16),
    "right_kidney": ((45, -40, -240), 16),
    "bladder": ((0, 20, -285), 16),
}


@dataclass
class Patient:
    """One case before it is written."""

    image: np.ndarray
    label: np.ndarray | None
    image_affine: np.ndarray = field(default_factory=AFFINE.copy)
    label_affine: np.ndarray = field(default_factory=AFFINE.copy)


def make_patient(seed: int) -> Patient:
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ AFFINE[:3, :3].T + AFFINE[:3, 3], -1, 0)
    body = (x / 105) ** 2 + (y / 85) ** 2 < 1
    image = np.where(body, -90, -1000) + rng.integers(-24, 24, SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    for name, ((cx, cy, cz), radius) in ORGANS.items():
        organ = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2
        image[organ] = 60 + rng.integers(-20, 20, SHAPE)[organ]
        label[organ] = LABELS[name]
    return Patient(image.astype(np.int16), label)


class Writer:
    """Writes patients in the Decathlon layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.patients = {name: make_patient(n) for n, name in enumerate("abcdef")}
        self.listing: dict = {"modality": {"0": "CT"}}
        self.labels = dict(LABELS)

    def __getitem__(self, name: str) -> Patient:
        return self.patients[name]

    def image(self, name: str) -> Path:
        return self.folder / f"imagesTr/{name}.nii.gz"

    def label(self, name: str) -> Path:
        return self.folder / f"labelsTr/{name}.nii.gz"

    def write(self) -> Dataset:
        training = []
        for name, patient in self.patients.items():
            save(self.image(name), patient.image, patient.image_affine)
            entry = {"image": f"imagesTr/{name}.nii.gz"}
            if patient.label is not None:
                save(self.label(name), patient.label, patient.label_affine)
                entry["label"] = f"labelsTr/{name}.nii.gz"
            training.append(entry)
        labels = {"0": "background", **{str(v): n for n, v in self.labels.items()}}
        listing = {"name": "Toy", "labels": labels, "training": training, **self.listing}
        (self.folder / "dataset.json").write_text(json.dumps(listing))
        return open_dataset(self.folder)


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Writer:
    """Six healthy patients, a to f."""
    return Writer(tmp_path / "toy")


@pytest.fixture
def saved() -> Callable[..., Path]:
    return save
