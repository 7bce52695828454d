"""A tiny dataset and a tiny recipe, so that a whole training takes a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def write_tiny_dataset(
    folder: Path, n_cases: int = 6, side: int = 24, slices: int = 9, seed: int = 11
) -> Path:
    """Bright balls on a noisy ground, in Decathlon layout, with orientations that differ."""
    rng = np.random.default_rng(seed)
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    entries = []
    for number in range(n_cases):
        name = f"ball_{number:02d}"
        grid = np.stack(np.meshgrid(*map(np.arange, (side, side, slices)), indexing="ij"), -1)
        centre = rng.uniform([8, 8, 3], [side - 8, side - 8, slices - 3])
        distance = np.linalg.norm((grid - centre) * (1, 1, 2), axis=-1)
        label = (distance < 5).astype(np.uint8)
        label[distance < 2] = 2
        image = (rng.normal(0, 25, label.shape) + 120 * (label > 0)).astype(np.int16)
        affine = np.diag([-1.5, -1.5, 3, 1]) if number % 2 else np.diag([1.5, -1.5, 3, 1])
        for array, kind in ((image, "imagesTr"), (label, "labelsTr")):
            nib.save(nib.Nifti1Image(array, affine), folder / kind / f"{name}.nii.gz")
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    description = {
        "name": "Balls",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "ball", "2": "core"},
        "training": entries,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session")
def make_tiny_dataset() -> Callable[..., Path]:
    """Writes a tiny dataset into a folder."""
    return write_tiny_dataset


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of 24 x 24 x 9 voxels."""
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """Three epochs of four steps on 24 x 24 slices, by the network that trains fastest."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        """
name: tiny
data:
  labels: {ball: [1, 2]}
network: {name: combiner, options: {base_filters: 8}}
plan: {frame: {axes: [24, 24, null]}}
packaging: {export: false}
phases:
  - sampler: {name: slices, options: {margin: 2}}
    optimiser: {name: NAdam, options: {lr: 1.0e-3}}
    clip_norm: 12.0
    epochs: 3
    steps_per_epoch: 4
    batch_size: 4
training:
  threads: 1
  precision: "32"
  checkpoint_interval_s: 0
"""
    )
    return path
