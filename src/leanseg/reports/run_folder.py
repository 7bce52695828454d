"""A run folder as the report sees it: what is there, and what is still missing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from leanseg.datasets import Case, Split, load_case, read_source, read_splits
from leanseg.errors import DatasetError, FileFormatError
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.scores import Scores, read_scores
from leanseg.plan import HounsfieldWindow, Plan
from leanseg.volumes import Volume


@dataclass(frozen=True)
class Fold:
    """What one fold has left behind so far.

    Attributes:
        index: Number in the folder's name.
        folder: `fold_<index>`.
        epochs: The lines of `metrics.jsonl`, in order; empty before the first epoch ends.
        summary: `summary.json`, empty before training ends.
        scores: `validation/scores.json`, None before the validation cases are scored.
    """

    index: int
    folder: Path
    epochs: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    scores: Scores | None

    @property
    def cases(self) -> tuple[LabelScore, ...]:
        """Scores of this fold's validation cases, in the file's order."""
        return () if self.scores is None else self.scores.cases

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
        recipe_text: `recipe.yaml` as it stands; empty where it is missing.
        plan: `plan.json`, or None where it is missing.
        data: `data.json`; empty where it is missing.
        environment: `environment.json`; empty where it is missing.
        splits: Cases of each fold; empty where missing.
        folds: In ascending order; only those that have been started.
    """

    folder: Path
    recipe_text: str
    plan: Plan | None
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    splits: tuple[Split, ...]
    folds: tuple[Fold, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Foreground labels, in the plan's order."""
        if self.plan is not None:
            return self.plan.labels
        return () if self.scores is None else tuple(self.scores.labels)

    @property
    def window_hu(self) -> tuple[float, float] | None:
        """The Hounsfield window that the network sees; None where the plan has none."""
        window = None if self.plan is None else self.plan.final.intensity.window
        return (window.low, window.high) if isinstance(window, HounsfieldWindow) else None

    @cached_property
    def scores(self) -> Scores | None:
        """All folds' scores together, or None before there are any."""
        scored = [fold.scores for fold in self.folds if fold.scores is not None]
        if not scored:
            return None
        cases = tuple(score for one in scored for score in one.cases)
        return Scores(labels=scored[0].labels, cases=cases, settings=scored[0].settings)

    @property
    def cases(self) -> tuple[LabelScore, ...]:
        """Scores of all folds' validation cases."""
        return () if self.scores is None else self.scores.cases

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """A sentence for everything that the report would show and the run does not have."""
        files = {
            "recipe.yaml": (self.recipe_text, "the recipe"),
            "plan.json": (self.plan, "the plan"),
            "data.json": (self.data, "what the data are"),
            "splits.json": (self.splits, "which cases were held back"),
            "environment.json": (self.environment, "the environment"),
        }
        sentences = [
            f"{name} is missing, so {what} cannot be shown."
            for name, (content, what) in files.items()
            if not content
        ]
        if not self.folds:
            sentences.append("No fold has been started: there is no folder fold_0.")
        for fold in self.folds:
            where = fold.folder.name
            if not fold.epochs:
                sentences.append(f"{where} has no finished epoch yet (metrics.jsonl).")
            if not fold.summary:
                sentences.append(f"{where} is still training or was stopped (no summary.json).")
            if fold.scores is None:
                sentences.append(f"{where} has no scores yet (no validation/scores.json).")
        if 0 < len(self.folds) < len(self.splits):
            started = f"{len(self.folds)} of the split's {len(self.splits)} folds"
            sentences.append(f"{started} were started.")
        return tuple(sentences)

    def annotated(self, case: str) -> Collection[str]:
        """Names of the plan's labels that a case annotates."""
        known: Collection[str] = self._entry(case).get("annotated_classes", self.labels)
        return known

    def reference(self, case: str) -> Volume:
        """A case's label map with the plan's values 1..N, in its scan's voxel order.

        Labels that the case does not annotate are left out.

        Raises:
            DatasetError: If the run does not know the case, or the case has no label map.
            LeansegError: If a file cannot be read.
        """
        _, volume = load_case(self._case(case))
        if volume is None:
            msg = f"{case}: has no label map"
            raise DatasetError(msg)
        planned = np.zeros(volume.array.shape, dtype=np.uint16)
        for name, value in self.data["labels"].items():
            if name in self.annotated(case):
                merged = self.data["label_values"].get(name, [value])
                planned[np.isin(volume.array, merged)] = value
        return volume.with_array(planned)

    def image(self, case: str) -> Volume:
        """The first channel that the network sees of a case's scan, (i, j, k).

        Raises:
            DatasetError: If the run does not know the case.
            LeansegError: If the file cannot be read.
        """
        wanted = (self._entry(case).get("channel_indices") or [0])[0]
        for source in self._case(case).images:
            volume = read_source(source)
            if wanted < volume.n_channels:
                channels = volume.array.reshape(*volume.shape, -1)
                return volume.with_array(channels[..., wanted])
            wanted -= volume.n_channels
        msg = f"{case}: its scan has fewer channels than the run used"
        raise DatasetError(msg)

    def _entry(self, name: str) -> Mapping[str, Any]:
        for entry in self.data.get("cases", ()):
            if entry["name"] == name:
                return dict(entry)
        msg = f"{name}: data.json does not say where its files are"
        raise DatasetError(msg)

    def _case(self, name: str) -> Case:
        case = Case.from_json(self._entry(name))
        for source in case.sources:
            if not source.exists():
                msg = f"{name}: {source.path} is not there any more"
                raise DatasetError(msg)
        return case


def read_run_folder(folder: Path) -> RunFolder:
    """Read a run folder; what a run in progress does not have yet is left empty.

    Args:
        folder: The folder given to `leanseg train --output`.

    Raises:
        DatasetError: If the folder does not exist or is not a run.
        FileFormatError: If one of its files is damaged.
    """
    folder = folder.expanduser().resolve()
    recipe, plan, splits = (folder / n for n in ("recipe.yaml", "plan.json", "splits.json"))
    if not folder.is_dir():
        msg = f"{folder}: there is no such folder; give the folder that `leanseg train` wrote"
        raise DatasetError(msg)
    if not (recipe.is_file() or plan.is_file()):
        msg = (
            f"{folder}: not a run, it has neither recipe.yaml nor plan.json; "
            "give the folder that `leanseg train --output` wrote"
        )
        raise DatasetError(msg)
    numbered = [
        (int(number), path)
        for path in folder.glob("fold_*")
        if path.is_dir() and (number := path.name.removeprefix("fold_")).isdecimal()
    ]
    return RunFolder(
        folder=folder,
        recipe_text=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        plan=_read_plan(plan) if plan.is_file() else None,
        data=_read_object(folder / "data.json"),
        environment=_read_object(folder / "environment.json"),
        splits=tuple(read_splits(splits)) if splits.is_file() else (),
        folds=tuple(_read_fold(index, path) for index, path in sorted(numbered)),
    )


def _read_fold(index: int, folder: Path) -> Fold:
    scores = folder / "validation" / "scores.json"
    return Fold(
        index=index,
        folder=folder,
        epochs=_read_epochs(folder / "metrics.jsonl"),
        summary=_read_object(folder / "summary.json"),
        scores=read_scores(scores) if scores.is_file() else None,
    )


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        msg = f"{path}: {where}: {first['msg']}; restore plan.json or train again"
        raise FileFormatError(msg) from error


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path}: not readable as JSON ({error}); restore the file or make it again"
        raise FileFormatError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: expected a JSON object, found {type(content).__name__}; restore the file"
        raise FileFormatError(msg)
    return content


def _read_epochs(path: Path) -> tuple[dict[str, Any], ...]:
    """The JSON objects of a file with one on each line; empty where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):  # a run in progress may be writing this very line
                break
            msg = f"{path}: line {number} is not readable as JSON ({error}); remove that line"
            raise FileFormatError(msg) from error
    return tuple(rows)
