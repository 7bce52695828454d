"""A small run folder, written by hand so that it does not depend on training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import Case
from leanseg.evaluation import evaluate_masks
from leanseg.evaluation.scores import Scores
from leanseg.plan import HounsfieldWindow
from plans import slices

SHAPE, SPACING = (24, 20, 12), (1.0, 1.5, 4.0)


def write_nifti(path: Path, array: np.ndarray) -> None:
    """With axes that increase to the left, posterior and superior, as in the DICOM standard."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (11.0, 13.0, -100.0)
    nib.save(nib.Nifti1Image(array, affine), path)


def block(start: tuple[int, int, int], length: int = 6) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    i, j, k = start
    mask[i : i + length, j : j + length, k : k + length // 2] = 1
    return mask


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run whose predictions are the references, moved by one voxel a case."""

    def make(
        *, labels: tuple[str, ...] = ("organ",), n_folds: int = 1, prefix: str = "case"
    ) -> Path:
        run, data = tmp_path / "my run", tmp_path / "data"
        run.mkdir()
        data.mkdir()
        names = [f"{prefix}_{n}" for n in range(6)]
        for n, name in enumerate(names):
            rng = np.random.default_rng(n)
            reference = np.zeros(SHAPE, dtype=np.uint8)
            for value in range(1, len(labels) + 1):
                reference[block((2 + n, 7 * value - 5, 3)) > 0] = value
            image = rng.normal(0, 20, SHAPE) + 100 * (reference > 0)
            write_nifti(data / f"{name}.nii.gz", image.astype(np.int16))
            write_nifti(data / f"{name}_label.nii.gz", reference)
        splits = [
            {
                "train": [name for m, name in enumerate(names) if m % 2 != fold % 2],
                "monitor": [],
                "test": [name for m, name in enumerate(names) if m % 2 == fold % 2],
            }
            for fold in range(n_folds)
        ]
        _write_json(run / "splits.json", splits)
        _write_top(run, data, names, labels)
        for fold, split in enumerate(splits):
            _write_fold(run / f"fold_{fold}", data, split["test"], labels)
        return run

    return make


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_top(run: Path, data: Path, names: list[str], labels: tuple[str, ...]) -> None:
    (run / "recipe.yaml").write_text("name: test\nphases:\n- epochs: 4\n", encoding="utf-8")
    (run / "plan.json").write_text(
        slices(labels=labels, window=HounsfieldWindow()).model_dump_json()
    )
    _write_json(run / "environment.json", {"versions": {"torch": "2.9.1"}, "gpus": []})
    numbered = {label: value for value, label in enumerate(labels, start=1)}
    cases = [
        Case(data / f"{name}.nii.gz", data / f"{name}_label.nii.gz").to_json() for name in names
    ]
    content = {
        "name": "Test data",
        "root": str(data),
        "layout": "pairs",
        "label_values": {label: [value] for label, value in numbered.items()},
        "channels": ["CT"],
        "channel_indices": None,
        "annotated": dict.fromkeys(names, labels),
        "fingerprint": "0123abcd" * 8,
        "cases": cases,
    }
    _write_json(run / "data.json", content)


def _write_fold(folder: Path, data: Path, names: list[str], labels: tuple[str, ...]) -> None:
    predictions = folder / "test" / "predictions"
    predictions.mkdir(parents=True)
    numbered = {label: value for value, label in enumerate(labels, start=1)}
    scores = []
    for n, name in enumerate(names):
        reference = np.asarray(nib.load(data / f"{name}_label.nii.gz").dataobj)
        predicted = np.roll(reference, n + 1, axis=0)
        write_nifti(predictions / f"{name}.nii.gz", predicted)
        found = evaluate_masks(predicted, reference, SPACING, numbered)
        scores += [replace(score, case=name) for score in found]
    merged = {label: (value,) for label, value in numbered.items()}
    Scores(merged, tuple(scores), {"surface_tolerance_mm": 1.0}).to_json(
        folder / "test" / "scores.json"
    )
    rows = [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "train_loss": 1 / epoch,
            "monitor_loss": 1.2 / epoch,
            "monitor_dice": (0.2, 0.6, 0.7, 0.65)[epoch - 1],
            "learning_rate": 5e-4,
            "seconds": 30.0,
            "elapsed_s": 30.0 * epoch,
            "best": epoch < 4,
        }
        for epoch in (1, 2, 3, 4)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    _write_json(
        folder / "summary.json",
        {
            "network": "monet",
            "network_options": {},
            "parameters": 401666,
            "keras_total": 403556,
            "precision": "32",
            "threads": 2,
            "train_seconds": 120.0,
            "stopped_because": "epochs",
            "model_file": "model.leanseg",
            "model_bytes": 1650000,
            "prediction": {
                "cases": [{"case": name, "seconds": 1.5, "slices": 12} for name in names]
            },
        },
    )
