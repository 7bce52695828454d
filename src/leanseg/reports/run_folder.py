"""A run folder as the report sees it: what was started, and how far each fold has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from leanseg.datasets import Split, load_case, read_splits
from leanseg.errors import DatasetError, FileFormatError
from leanseg.evaluation.scores import Scores, read_scores
from leanseg.plan import HounsfieldWindow, Plan
from leanseg.training.data import TrainingData
from leanseg.training.metrics import read_metrics
from leanseg.volumes import Volume

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class Fold:
    """What one fold has left behind so far.

    Attributes:
        index: Number in the folder's name.
        folder: `fold_<index>`.
        epochs: The lines of `metrics.jsonl`, in order; empty before the first epoch ends.
        summary: `summary.json`, empty before training ends.
        scores: `validation/scores.json`, without cases before they are scored.
    """

    index: int
    folder: Path
    epochs: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    scores: Scores

    @property
    def best_epoch(self) -> int | None:
        """Index of the last epoch marked best, which is the one whose weights are kept."""
        marked = [index for index, row in enumerate(self.epochs) if row.get("best")]
        return marked[-1] if marked else None

    def prediction_path(self, case: str) -> Path:
        """Where the predicted label map of a validation case lies."""
        return self.folder / "validation" / "predictions" / f"{case}.nii.gz"


@dataclass(frozen=True)
class RunFolder:
    """A training run on disk.

    Attributes:
        folder: The run's folder, absolute.
        recipe_text: `recipe.yaml` as it stands.
        plan: `plan.json`.
        data: `data.json`.
        environment: `environment.json`.
        splits: Cases of each fold.
        folds: In ascending order; only those that have been started.
    """

    folder: Path
    recipe_text: str
    plan: Plan
    data: TrainingData
    environment: Mapping[str, Any]
    splits: tuple[Split, ...]
    folds: tuple[Fold, ...]

    @property
    def window_hu(self) -> tuple[float, float] | None:
        """The Hounsfield window that the network sees; None where the plan has none."""
        window = self.plan.final.intensity.window
        return (window.low, window.high) if isinstance(window, HounsfieldWindow) else None

    @property
    def labels(self) -> Mapping[str, int]:
        """Foreground labels with their values in predictions and in `volumes`."""
        return {name: value for value, name in enumerate(self.plan.labels, start=1)}

    @cached_property
    def scores(self) -> Scores:
        """All folds' scores together."""
        cases = tuple(score for fold in self.folds for score in fold.scores.cases)
        merged: dict[str, tuple[int, ...]] = {name: (value,) for name, value in self.labels.items()}
        settings = next((f.scores.settings for f in self.folds if f.scores.cases), {})
        return Scores(merged, cases, settings)

    @property
    def missing(self) -> list[str]:
        """A sentence for everything that a run in progress does not have yet."""
        sentences = []
        for fold in self.folds:
            where = fold.folder.name
            if not fold.epochs:
                sentences.append(f"{where} has no finished epoch yet (metrics.jsonl).")
            if not fold.summary:
                sentences.append(f"{where} is still training or was stopped (no summary.json).")
            if not fold.scores.cases:
                sentences.append(f"{where} has no scores yet (no validation/scores.json).")
        if len(self.folds) < len(self.splits):
            started = f"{len(self.folds)} of the split's {len(self.splits)} folds"
            sentences.append(f"{started} have been started.")
        return sentences

    def files(self) -> Iterator[Path]:
        """What its report is made from; other reports in the folder are not."""
        yield from (path for path in self.folder.rglob("*") if path.suffix != ".html")
        yield from (source.stored for case in self.data.cases for source in case.sources)

    def volumes(self, case: str) -> tuple[Volume, Volume]:
        """The first channel of a case that the network sees, and its label map, (i, j, k).

        The label map has the values of `labels`, without labels that the case does not annotate.

        Raises:
            LeansegError: If a file cannot be read.
        """
        image, label = load_case(self.data.case(case))
        assert label is not None  # training keeps labelled cases alone
        channels = image.array.reshape(*image.shape, -1)
        shown = channels[..., (self.data.channel_indices or (0,))[0]]
        classes = np.zeros(label.shape, dtype=np.uint16)
        for name, value in self.labels.items():
            if name in self.data.annotated[case]:
                classes[np.isin(label.array, self.data.label_values[name])] = value
        return image.with_array(shown), label.with_array(classes)


def read_run_folder(folder: Path) -> RunFolder:
    """Read a run folder, finished or still in progress.

    Args:
        folder: The folder given to `leanseg train --output`.

    Raises:
        DatasetError: If the folder is not a run, or lacks a file that every run has.
        FileFormatError: If one of its files is damaged.
    """
    folder = folder.expanduser().resolve()
    numbered = [
        (int(number), path)
        for path in folder.glob("fold_*")
        if path.is_dir() and (number := path.name.removeprefix("fold_")).isdecimal()
    ]
    return RunFolder(
        folder=folder,
        recipe_text=_read(folder / "recipe.yaml", str),
        plan=_read(folder / "plan.json", Plan.model_validate_json),
        data=_read(folder / "data.json", lambda text: TrainingData.from_json(json.loads(text))),
        environment=_read(folder / "environment.json", json.loads),
        splits=tuple(read_splits(folder / "splits.json")),
        folds=tuple(_read_fold(index, path) for index, path in sorted(numbered)),
    )


def _read_fold(index: int, folder: Path) -> Fold:
    summary, scores = folder / "summary.json", folder / "validation" / "scores.json"
    return Fold(
        index=index,
        folder=folder,
        epochs=tuple(read_metrics(folder / "metrics.jsonl")),
        summary=_read(summary, json.loads) if summary.is_file() else {},
        scores=read_scores(scores) if scores.is_file() else Scores({}, (), {}),
    )


def _read(path: Path, parse: Callable[[str], _Content]) -> _Content:
    """What `parse` makes of a file that every run has."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = (
            f"{path.parent}: is not a run, its {path.name} cannot be read ({error.strerror}); "
            "give the folder that `leanseg train --output` wrote"
        )
        raise DatasetError(msg) from error
    except (ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path}: is damaged ({reason}); restore it or train again"
        raise FileFormatError(msg) from error
