"""Networks on real scans, equal processor minutes: tables in docs/results.md.

    python benchmarks/study_networks.py hippocampus Task04_Hippocampus results --cpu-minutes 10
    python benchmarks/study_networks.py sarcoma Task101_SarcomaCT results --cpu-minutes 20
    python benchmarks/study_networks.py brain Task102_BrainTumour results --cpu-minutes 20

All rows of a study have the same loss, optimiser, schedule and augmentation. A row that is there
already is not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import leanseg
from leanseg.training.recipe import validate_recipe

_OWN = [None, None, None]
_WHOLE = ["whole", "whole", "whole"]
_TWO_MM = {"spacing_mm": 2}
_HU = {"window": {"kind": "hu", "low": -150, "high": 250}, "scaling": "zscore"}
_MR = {"window": {"kind": "quantile", "low": 0.005, "high": 0.995}, "scaling": "zscore"}
_SKULL_STRIPPED = {**_MR, "window": {**_MR["window"], "nonzero_only": True}}  # type: ignore[dict-item]
_BRATS = {"enhancing": [3], "core": [1, 3], "whole": [1, 2, 3]}


def _row(
    network: str, options: dict[str, Any], axes: list[Any], patch: list[Any], batch_size: int
) -> dict[str, Any]:
    whole = patch == _WHOLE or options.pop("whole", False)
    return {
        "network": {"name": network, "options": options},
        "axes": axes,
        "patch": patch,
        "batch_size": batch_size,
        "sampler": {"name": "volumes" if whole else "patches"},
    }


def _nnunet(shape: list[int], spacing_mm: list[float], filters: int) -> dict[str, Any]:
    return {
        "base_filters": filters,
        "shape": shape,
        "spacing_mm": spacing_mm,
        "max_pools": 3 if len(shape) == 3 else 4,
    }


_EVEN = [1.0, 1.0, 1.0]
# Study -> what its rows share, and the rows.
STUDIES: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "hippocampus": (
        {"intensity": _MR, "n_folds": 5},
        {
            "nnunet-3d": _row("nnunet-3d", _nnunet([40, 48, 40], _EVEN, 12), _OWN, [40, 48, 40], 2),
            "nnunet-2d": _row("nnunet-2d", _nnunet([48, 64], [1, 1], 16), _OWN, [48, 64, 1], 16),
            "unet-16": _row("unet-16", {}, _OWN, [48, 64, 1], 16),
            "monet": _row("monet", {"dropout": 0.0}, _OWN, [48, 64, 1], 16),
            "obelisk-hybrid": _row("obelisk-hybrid-tcia", {}, [48, 64, 48], _WHOLE, 2),
            "msd-3d": _row("msd-3d", {"depth": 30}, _OWN, [32, 40, 32], 2),
            "nnunet-3d-whole": _row(
                "nnunet-3d",
                {**_nnunet([48, 64, 48], _EVEN, 12), "whole": True},
                _OWN,
                [48, 64, 48],
                2,
            ),
        },
    ),
    "sarcoma": (
        {"intensity": _HU, "n_folds": 2},
        {
            "2-D patches": _row(
                "nnunet-2d",
                _nnunet([96, 96], [1, 1], 16),
                [_TWO_MM, _TWO_MM, None],
                [96, 96, 1],
                16,
            ),
            "3-D patches": _row(
                "nnunet-3d",
                _nnunet([96, 96, 32], [2, 2, 3.27], 12),
                [_TWO_MM, _TWO_MM, None],
                [96, 96, 32],
                2,
            ),
        },
    ),
    "brain": (
        {"intensity": _SKULL_STRIPPED, "n_folds": 3, "labels": _BRATS},
        {
            "2-D patches": _row(
                "nnunet-2d", _nnunet([96, 96], [1, 1], 16), [_TWO_MM] * 3, [96, 96, 1], 16
            ),
            "3-D patches": _row(
                "nnunet-3d", _nnunet([64, 64, 64], _EVEN, 12), [_TWO_MM] * 3, [64, 64, 64], 2
            ),
        },
    ),
}


def recipe(study: str, name: str, folds: list[int], threads: int) -> leanseg.Recipe:
    """The recipe of a row."""
    shared, rows = STUDIES[study]
    row = rows[name]
    phase = {
        "sampler": row["sampler"],
        "augmentation": [
            {
                "name": "spatial",
                "options": {"rotation_deg": 15, "zoom": [0.85, 1.25], "probability": 0.5},
            },
            *({"name": each} for each in ("gamma", "brightness", "contrast", "noise")),
        ],
        "loss": [{"name": "dice", "options": {"smooth": 1e-5}}, {"name": "cross-entropy"}],
        "optimiser": {"name": "AdamW", "options": {"lr": 3e-3}},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "batch_size": row["batch_size"],
        "clip_norm": 12.0,
        "average": 0.99,
        "epochs": None,
        "steps_per_epoch": 100,
        "steps": 1_000_000,
        "selection": "last",
    }
    content = {
        "name": name.replace(" ", "-"),
        "data": {"labels": shared.get("labels")},
        "network": row["network"],
        "plan": {
            "frame": {"orientation": "RAS", "axes": row["axes"]},
            "patch": {"shape": row["patch"]},
            "intensity": shared["intensity"],
        },
        "split": {"kind": "k-fold", "n_folds": shared["n_folds"], "monitor_fraction": 0.0},
        "phases": [phase],
        "training": {"threads": threads, "folds": folds, "precision": "bf16-mixed"},
    }
    return validate_recipe(content, name)


def main() -> None:
    """Train the rows of a study, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cpu-minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+")
    given = parser.parse_args()
    data = leanseg.open_dataset(given.data)
    rows = given.rows or list(STUDIES[given.study][1])
    for row in rows:
        chosen = recipe(given.study, row, given.folds, given.threads)
        folder = given.output / row.replace(" ", "-")
        if (folder / "recipe.yaml").exists():
            leanseg.resume(folder)
        else:
            leanseg.train(
                data, chosen.within(cpu_minutes=given.cpu_minutes), output=folder, check=False
            )
    print("| network | parameters | steps | CPU min | Dice, mean ± SD | worst | per class |")
    print("|---|---|---|---|---|---|---|")
    cases: set[str] = set()
    for row in rows:
        cases |= print_row(row, given.output / row.replace(" ", "-"), given.folds)
    if given.study == "sarcoma":
        dice = np.array([ellipsoid_dice(case) for case in data if case.name in cases])
        told = f"{dice.mean():.3f} ± {dice.std():.3f} | {dice.min():.3f}"
        print(f"| an ellipsoid in the middle, which looks at nothing | 0 | | | {told} | |")


def print_row(row: str, folder: Path, folds: list[int]) -> set[str]:
    """Print one line of the table; gives the names of the test cases."""
    cases: dict[str, dict[str, float]] = {}
    summaries = []
    for fold in folds:
        summaries.append(json.loads((folder / f"fold_{fold}/summary.json").read_text()))
        scores = json.loads((folder / f"fold_{fold}/test/scores.json").read_text())
        for score in scores["cases"]:
            dice = score["metrics"]["dice"]
            cases.setdefault(score["case"], {})[score["label"]] = dice or 0.0
    means = np.array([np.mean(list(each.values())) for each in cases.values()])
    per_class = ", ".join(
        f"{label} {np.mean([each[label] for each in cases.values()]):.3f}"
        for label in next(iter(cases.values()))
    )
    steps = "/".join(str(each["steps"]) for each in summaries)
    minutes = np.mean([each["train_cpu_seconds"] for each in summaries]) / 60
    print(
        f"| {row} | {summaries[0]['parameters']:,} | {steps} | {minutes:.1f} | {means.mean():.3f} "
        f"± {means.std():.3f} | {means.min():.3f} | {per_class} |"
    )
    return set(cases)


def ellipsoid_dice(case: leanseg.Case, margin_mm: float = 50.0) -> float:
    """Dice of the ellipsoid that fills the scan but for a margin, without a look at it."""
    label = case.label
    assert label is not None
    inside = np.zeros((1, 1, 1))
    for axis, (n, mm) in enumerate(zip(label.shape, label.spacing_mm, strict=True)):
        # In whole voxels, as the scans were cropped.
        half = max(n / 2 - np.ceil(margin_mm / mm), 0.5)
        along = (np.arange(n) - (n - 1) / 2) / half
        inside = inside + np.expand_dims(along**2, [a for a in range(3) if a != axis])
    ellipsoid, truth = inside <= 1, label.array > 0
    return 2 * float((ellipsoid & truth).sum()) / float(ellipsoid.sum() + truth.sum())


if __name__ == "__main__":
    main()
