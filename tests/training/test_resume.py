"""A run killed by SIGKILL and resumed ends at the very same weights."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest

from forked import killed_before_step
from leanseg.cli.main import run as run_command


def leanseg(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(arguments)
    return int(ended.value.code or 0)


def killed(steps: int, *arguments: str) -> bool:
    """Run a command in a process that kills itself after some steps."""
    return killed_before_step(steps, lambda: leanseg(*arguments)) == -signal.SIGKILL


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def train(recipe: Path, data: Path, folder: Path, workers: int) -> tuple[str, ...]:
    return (
        *("train", str(recipe), "--data", str(data), "--output", str(folder)),
        *("--set", f"training.workers={workers}"),
    )


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("reference")
    recipe = folder / "tiny.yaml"
    recipe.write_text(
        """
name: tiny
data: {labels: {ball: [1, 2]}}
network: {name: monet, options: {base_filters: 4}}
plan: {frame: {axes: [24, 24, null]}}
packaging: {export: false}
phases:
  - sampler: {name: slices, options: {margin: 2}}
    epochs: 3
    steps_per_epoch: 4
    batch_size: 4
training: {threads: 1, precision: "32", checkpoint_interval_s: 0}
"""
    )
    assert leanseg(*train(recipe, tiny_dataset, folder / "run", workers=0)) == 0
    return recipe, folder / "run" / "fold_0"


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_killed_and_resumed_weights_have_the_same_sha256(
    uninterrupted: tuple[Path, Path], tiny_dataset: Path, tmp_path: Path, workers: int
) -> None:
    recipe, reference = uninterrupted
    run = tmp_path / "run"
    # In the first epoch and at an epoch's first step, or at its last.
    first, *others = (11,) if workers else (1, 7)
    assert killed(first, *train(recipe, tiny_dataset, run, workers))
    for steps in others:
        assert killed(steps, "train", "--resume", str(run))
    assert leanseg("train", "--resume", str(run)) == 0
    fold = run / "fold_0"
    for name in ("checkpoint.safetensors", "model.leanseg"):
        same = sha256(fold / name) == sha256(reference / name)
        # The model file also records the number of workers in its recipe.
        assert same or (workers and name == "model.leanseg"), name
    ours = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in (reference / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in ours] == [1, 2, 3]
    for key in ("train_loss", "monitor_loss", "monitor_dice", "learning_rate", "step"):
        assert [row[key] for row in ours] == [row[key] for row in theirs], key


def test_a_finished_run_is_left_alone(uninterrupted: tuple[Path, Path]) -> None:
    _, fold = uninterrupted
    before = sha256(fold / "model.leanseg"), (fold / "model.leanseg").stat().st_mtime_ns
    assert leanseg("train", "--resume", str(fold.parent)) == 0
    assert (sha256(fold / "model.leanseg"), (fold / "model.leanseg").stat().st_mtime_ns) == before


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_killed_before_every_single_step(
    uninterrupted: tuple[Path, Path], tiny_dataset: Path, tmp_path: Path, precision: str
) -> None:
    recipe, _ = uninterrupted
    own = tmp_path / "recipe.yaml"
    own.write_text(recipe.read_text().replace('"32"', f'"{precision}"'))
    assert leanseg(*train(own, tiny_dataset, tmp_path / "whole", workers=0)) == 0
    run = tmp_path / "run"
    assert killed(0, *train(own, tiny_dataset, run, workers=0))
    for _ in range(1, 12):
        assert killed(1, "train", "--resume", str(run))
    assert leanseg("train", "--resume", str(run)) == 0
    name = "fold_0/checkpoint.safetensors"
    assert sha256(run / name) == sha256(tmp_path / "whole" / name)
