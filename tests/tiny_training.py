"""Trainings of a moment, without files: a recipe, a plan and prepared cases."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import plans
from leanseg.frames import CachedSource, PreparedCase
from leanseg.progress import Display
from leanseg.training.loop import FoldTrainer
from leanseg.training.recipe import Recipe, validate_recipe
from leanseg.training.trainer import Trainer
from leanseg.volumes import Box

SIDE, DEPTH = 16, 5
PLAN = plans.slices((SIDE, SIDE), ("ball", "core"))
# What each phase has where nothing else is said: four batches of 2 are not one pass of 3 cases.
PHASE = {
    "optimiser": {"name": "Adam", "options": {"lr": 0.01}},
    "schedule": {"name": "constant"},
    "batch_size": 2,
    "epochs": 2,
    "steps_per_epoch": 4,
}


def cases(n: int = 3, seed: int = 5) -> list[PreparedCase]:
    """Bright squares in noise, with a brighter core."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        classes = np.zeros((DEPTH, SIDE, SIDE), np.uint8)
        i, j = rng.integers(1, SIDE - 8, 2)
        classes[1:4, i : i + 7, j : j + 7] = 1
        classes[2:4, i + 2 : i + 5, j + 2 : j + 5] = 2
        image = rng.normal(0, 0.1, (DEPTH, 1, SIDE, SIDE)) + 0.4 * classes[:, None]
        source = CachedSource(image.astype(np.float32), Box((0, 0, 0), (SIDE, SIDE, DEPTH)))
        found.append(PreparedCase(f"case {number}", source, classes, classes))
    return found


def recipe(
    *phases: Mapping[str, Any], network: Any = "own_parts:Plain", options: Any = (), **more: Any
) -> Recipe:
    """A recipe in 32 bits on one thread; phases without a name are called 0, 1, ..."""
    named = [{"name": str(n), **PHASE, **phase} for n, phase in enumerate(phases or [{}])]
    content = {
        "name": "tiny",
        "network": {"name": network, "options": dict(options)},
        "phases": named,
        "training": {"threads": 1, "precision": "32", "checkpoint_interval_s": 0},
        **more,
    }
    return validate_recipe(content, "tiny")


def trainer(*phases: Mapping[str, Any], **more: Any) -> Trainer:
    """A trainer on three cases."""
    return Trainer(recipe(*phases, **more), PLAN, cases())


def fold(folder: Path, made: Recipe, monitored: int = 2) -> tuple[FoldTrainer, io.StringIO]:
    """The training of a fold in a folder, which is made, and what it says."""
    folder.mkdir(exist_ok=True)
    said = io.StringIO()
    display = Display(Console(file=said, width=2000))
    return FoldTrainer(folder, made, PLAN, cases(), cases(monitored, seed=9), display), said


def assert_same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """Weights that are the same bits."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
