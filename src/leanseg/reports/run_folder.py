"""A run folder as the report sees it: what was started, and how far each fold has come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from leanseg.datasets import Split, load_case
from leanseg.errors import FileFormatError, LeansegError
from leanseg.evaluation.scores import Scores, read_scores
from leanseg.frames import class_map, ignored_class
from leanseg.plan import HounsfieldWindow, Plan
from leanseg.training.data import TrainingData
from leanseg.training.folder import (
    END_FILES,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    PREDICTIONS_FOLDER,
    SCORES_FILE,
    SUMMARY_FILE,
    Run,
    read_record,
    read_run,
    require_unchanged,
)
from leanseg.training.metrics import read_metrics
from leanseg.volumes import Volume, reoriented_view


@dataclass(frozen=True)
class Fold:
    """What one fold has left behind so far.

    Attributes:
        index: Number in the folder's name.
        folder: `fold_<index>`.
        epochs: The lines of `metrics.jsonl`, in order; empty before the first epoch ends.
        summary: `summary.json`, empty before training ends.
        scores: `test/scores.json`, without cases before they are scored.
    """

    index: int
    folder: Path
    epochs: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    scores: Scores

    @property
    def best_epoch(self) -> int | None:
        """Index of the epoch whose weights are kept; before training ends, of the best so far."""
        if self.summary.get("best_epoch"):
            return int(self.summary["best_epoch"]) - 1
        marked = [index for index, row in enumerate(self.epochs) if row.get("best")]
        return marked[-1] if marked else None

    def prediction_path(self, case: str) -> Path:
        """Where the predicted label map of a test case lies."""
        return self.folder / PREDICTIONS_FOLDER / f"{case}.nii.gz"


@dataclass(frozen=True)
class RunFolder:
    """A training run on disk.

    Attributes:
        folder: The run's folder, absolute.
        recipe_text: `recipe.yaml`.
        plan: `plan.json`.
        data: `data.json`.
        environment: `environment.json`.
        splits: Cases of each fold.
        folds: In ascending order; only those that have been started.
        warnings: Sentences about the run's data and files.
    """

    folder: Path
    recipe_text: str
    plan: Plan
    data: TrainingData
    environment: Mapping[str, Any]
    splits: tuple[Split, ...]
    folds: tuple[Fold, ...]
    warnings: tuple[str, ...]

    @property
    def window_hu(self) -> tuple[float, float] | None:
        """The Hounsfield window that the network sees; None where the plan has none."""
        window = self.plan.final.intensity.window
        return (window.low, window.high) if isinstance(window, HounsfieldWindow) else None

    @property
    def labels(self) -> Mapping[str, int]:
        """Foreground labels with their values in predictions and in `volumes`.

        Of a region that others lie inside, the value of what lies in none of them.
        """
        return {name: value for value, name in enumerate(self.plan.labels, start=1)}

    @property
    def ignored(self) -> int | None:
        """Value in `volumes` of voxels that do not count; None where there are none."""
        return ignored_class(self.plan.labels) if self.data.ignored_values else None

    @cached_property
    def scores(self) -> Scores:
        """All folds' scores together."""
        cases = tuple(score for fold in self.folds for score in fold.scores.cases)
        merged = {name: tuple(sorted(v)) for name, v in self.plan.final.label_values.items()}
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
            if not fold.scores.cases and self.splits[fold.index].test:
                sentences.append(f"{where} has no scores yet (no {SCORES_FILE}).")
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

        The label map has the values of `labels`, without labels that the case does not annotate,
        and `ignored`.

        Raises:
            LeansegError: If a file cannot be read.
        """
        image, label = load_case(self.data.case(case))
        assert label is not None  # training keeps labelled cases alone
        channels = image.array.reshape(*image.shape, -1)
        shown = channels[..., (self.data.channel_indices or (0,))[0]]
        known = self.data.annotated[case]
        values = {name: v if name in known else [] for name, v in self.data.label_values.items()}
        stage = self.plan.final
        classes = class_map(label, stage, values, self.data.ignored_values).transpose(1, 2, 0)
        truth = reoriented_view(classes, stage.frame.orientation, label.orientation)
        return image.with_array(shown), label.with_array(truth)


def read_run_folder(folder: Path) -> RunFolder:
    """Read a run folder, finished or still in progress.

    Args:
        folder: The folder given to `leanseg train --output`.

    Raises:
        LeansegError: If the folder is not a run, or one of its files is missing, damaged, or was
            changed.
    """
    run = read_run(Path(os.path.realpath(folder)))
    started = [n for n in range(len(run.splits)) if run.fold_folder(n).is_dir()]
    folds = [_read_fold(run, number) for number in started]
    warnings = [each for fold in folds for each in fold.summary.get("warnings", ())]
    return RunFolder(
        folder=run.folder,
        recipe_text=run.recipe.to_yaml(),
        plan=run.plan,
        data=run.data,
        environment=read_record(run.folder / ENVIRONMENT_FILE),
        splits=run.splits,
        folds=tuple(folds),
        warnings=(*run.warnings, *warnings),
    )


def _read_fold(run: Run, number: int) -> Fold:
    folder = run.fold_folder(number)
    require_unchanged(folder, END_FILES)
    summary, scores = folder / SUMMARY_FILE, folder / SCORES_FILE
    fold = Fold(
        index=number,
        folder=folder,
        epochs=tuple(read_metrics(folder / METRICS_FILE)),
        summary=read_record(summary) if summary.exists() else {},
        scores=read_scores(scores) if scores.exists() else Scores({}, (), {}),
    )
    cases, labels = run.splits[number].test, run.plan.labels
    if any(score.case not in cases or score.label not in labels for score in fold.scores.cases):
        msg = f"{scores}: has cases or labels that this fold does not have; restore it"
        raise FileFormatError(msg)
    return fold


def short_names(given: Sequence[Path]) -> dict[str, Path]:
    """A short name for each: that of its folder, or the whole path where two would be alike.

    Raises:
        LeansegError: If one is given twice.
    """
    short = [
        path.absolute().parent.name if path.name == Path(SCORES_FILE).name else _stem(path)
        for path in given
    ]
    names = {
        (name if short.count(name) == 1 else str(path)): path
        for name, path in zip(short, given, strict=True)
    }
    if len(names) < len(given):
        twice = next(path for path in given if given.count(path) > 1)
        raise LeansegError(f"{twice}: is given twice; name each method once")
    return names


def _stem(path: Path) -> str:
    return path.stem if path.suffix == ".json" else path.absolute().name
