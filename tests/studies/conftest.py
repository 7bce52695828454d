"""A study of cells that take a moment, and an executor that does them in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanseg.datasets.phantom import PhantomOptions, dataset, make_phantom
from leanseg.executors import Ended, Executor, Job, attempt
from leanseg.training.yaml_text import write_yaml

STUDY: dict[str, Any] = {
    "name": "tiny",
    "title": "Two small networks",
    "metrics": ["dice", "volume_difference_ml"],
    "datasets": {
        "balls": {
            "phantom": {"cases": 6, "size": 64, "slices": 20},
            "set": {"data.labels": {"liver": [1]}},
        }
    },
    "recipes": {
        "small": "own.yaml",
        "large": {"recipe": "own.yaml", "set": {"network.options.base_filters": 6}},
    },
    "split": {"kind": "k-fold", "n_folds": 3, "monitor_fraction": 0.2},
    "budget": {"steps": 4},
}
RECIPE = """
name: own
network: {name: combiner, options: {base_filters: 4}}
plan: {frame: {axes: [16, 16, null]}}
packaging: {export: false}
phases:
  - {epochs: 2, steps_per_epoch: 2, batch_size: 2, optimiser: {name: Adam, options: {lr: 0.01}}}
training: {precision: "32", checkpoint_interval_s: 0}
"""


class Inline:
    """Does jobs one after another in this process, which takes no time to start."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        return (Ended(job, *attempt(job.function, job.arguments)) for job in jobs)


_DRAWN: dict[tuple[tuple[int, ...], PhantomOptions], Any] = {}


@pytest.fixture(autouse=True)
def _scans_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study's data are the same few phantoms."""

    def drawn(generator: np.random.Generator, options: PhantomOptions) -> Any:
        key = tuple(generator.bit_generator.seed_seq.entropy), options
        if key not in _DRAWN:
            _DRAWN[key] = make_phantom(generator, options)
        return _DRAWN[key]

    monkeypatch.setattr(dataset, "make_phantom", drawn)


@pytest.fixture
def inline() -> Executor:
    return Inline()


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Write a study file with its recipe; keys that are given replace those of `STUDY`."""

    def write(**keys: Any) -> Path:
        (tmp_path / "own.yaml").write_text(RECIPE)
        path = tmp_path / "study.yaml"
        path.write_text(write_yaml(STUDY | keys))
        return path

    return write
