"""Networks on the Decathlon's hippocampus, equal processor minutes: the table in docs/results.md.

    python benchmarks/study_hippocampus.py Task04_Hippocampus results --cpu-minutes 10 --folds 0

A run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import leanseg
from leanseg.training.recipe import validate_recipe

_SPATIAL = {
    "name": "spatial",
    "options": {"rotation_deg": 15, "zoom": [0.85, 1.25], "probability": 0.5},
}
_GREY = [{"name": "gamma"}, {"name": "brightness"}, {"name": "contrast"}, {"name": "noise"}]
_OWN = {"orientation": "RAS", "axes": [None, None, None]}

# Network, its options, frame, patch, sampler, batch size.
ROWS: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[Any], dict[str, Any], int]] = {
    "nnunet-3d": (
        "nnunet-3d",
        {"base_filters": 12, "shape": [40, 48, 40], "max_pools": 3},
        _OWN,
        [40, 48, 40],
        {"name": "patches"},
        2,
    ),
    "nnunet-3d-whole": (
        "nnunet-3d",
        {"base_filters": 12, "shape": [48, 64, 48], "max_pools": 3},
        _OWN,
        [48, 64, 48],
        {"name": "volumes"},
        2,
    ),
    "msd-3d": ("msd-3d", {"depth": 30}, _OWN, [32, 40, 32], {"name": "patches"}, 2),
    "nnunet-2d": (
        "nnunet-2d",
        {"base_filters": 16, "shape": [48, 64], "max_pools": 3},
        _OWN,
        [48, 64, 1],
        {"name": "patches"},
        16,
    ),
    "unet-16": ("unet-16", {}, _OWN, [48, 64, 1], {"name": "patches"}, 16),
    "monet": ("monet", {"dropout": 0.0}, _OWN, [48, 64, 1], {"name": "patches"}, 16),
    "obelisk-hybrid": (
        "obelisk-hybrid-tcia",
        {},
        {"orientation": "RAS", "axes": [48, 64, 48]},
        ["whole", "whole", "whole"],
        {"name": "volumes"},
        2,
    ),
}


def recipe(row: str, folds: list[int], threads: int) -> leanseg.Recipe:
    """The recipe of a row; all but what `ROWS` says is the same."""
    network, options, frame, patch, sampler, batch_size = ROWS[row]
    phase = {
        "sampler": sampler,
        "augmentation": [_SPATIAL, *_GREY],
        "loss": [{"name": "dice", "options": {"smooth": 1e-5}}, {"name": "cross-entropy"}],
        "optimiser": {"name": "AdamW", "options": {"lr": 3e-3}},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "batch_size": batch_size,
        "clip_norm": 12.0,
        "average": 0.99,
        "epochs": None,
        "steps_per_epoch": 100,
        "steps": 1_000_000,
        "selection": "last",
    }
    content = {
        "name": row,
        "network": {"name": network, "options": options},
        "plan": {
            "frame": frame,
            "patch": {"shape": patch},
            "intensity": {
                "window": {"kind": "quantile", "low": 0.005, "high": 0.995},
                "scaling": "zscore",
            },
        },
        "split": {"kind": "k-fold", "n_folds": 5, "monitor_fraction": 0.0},
        "phases": [phase],
        "training": {"threads": threads, "folds": folds, "precision": "bf16-mixed"},
    }
    return validate_recipe(content, row)


def main() -> None:
    """Train the rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cpu-minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    given = parser.parse_args()
    data = leanseg.open_dataset(given.data)
    for row in given.rows:
        chosen = recipe(row, given.folds, given.threads).within(cpu_minutes=given.cpu_minutes)
        folder = given.output / row
        if (folder / "recipe.yaml").exists():
            leanseg.resume(folder)
        else:
            leanseg.train(data, chosen, output=folder, check=False)
    print("| network | parameters | steps | CPU min | Dice, mean ± SD | worst | per class |")
    print("|---|---|---|---|---|---|---|")
    for row in given.rows:
        print(line(row, given.output / row, given.folds))


def line(row: str, folder: Path, folds: list[int]) -> str:
    """One line of the table."""
    cases: dict[str, dict[str, float]] = {}
    told = []
    for fold in folds:
        told.append(json.loads((folder / f"fold_{fold}/summary.json").read_text()))
        scores = json.loads((folder / f"fold_{fold}/test/scores.json").read_text())
        for score in scores["cases"]:
            dice = score["metrics"]["dice"]
            cases.setdefault(score["case"], {})[score["label"]] = dice or 0.0
    means = np.array([np.mean(list(each.values())) for each in cases.values()])
    labels = next(iter(cases.values()))
    per_class = ", ".join(
        f"{label} {np.mean([each[label] for each in cases.values()]):.3f}" for label in labels
    )
    steps = "/".join(str(each["steps"]) for each in told)
    minutes = sum(each["train_cpu_seconds"] for each in told) / 60 / len(told)
    return (
        f"| {row} | {told[0]['parameters']:,} | {steps} | {minutes:.1f} | {means.mean():.3f} ± "
        f"{means.std():.3f} | {means.min():.3f} | {per_class} |"
    )


if __name__ == "__main__":
    main()
