"""A run folder as the report sees it: what is there, and what is still missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leanseg.datasets import Split, read_splits
from leanseg.errors import DatasetError, FileFormatError
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.scores import Scores, read_scores
from leanseg.preprocessing.plan import Plan


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

    def prediction_path(self, case: str) -> Path:
        """Where the predicted label map of a validation case lies."""
        return self.folder / "validation" / "predictions" / f"{case}.nii.gz"


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        folder: The run's folder, absolute.
        recipe_text: `recipe.yaml` as it stands; empty where it is missing.
        plan: `plan.json`, or None where it is missing.
        data: `data.json`; empty where it is missing.
        environment: `environment.json`; empty where it is missing.
        splits: Training and validation cases of each fold; empty where missing.
        folds: In ascending order; only those that have been started.
        missing: A sentence for everything that the report would show and the run does not have.
    """

    folder: Path
    recipe_text: str
    plan: Plan | None
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    splits: tuple[Split, ...]
    folds: tuple[Fold, ...]
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Foreground labels, in the plan's order."""
        if self.plan is not None:
            return self.plan.labels
        return () if self.scores is None else tuple(self.scores.labels)

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

    def case_entry(self, name: str) -> Mapping[str, Any] | None:
        """The entry of `data.json` for a case, or None."""
        for entry in self.data.get("cases", ()):
            if entry["name"] == name:
                return dict(entry)
        return None


def read_run(folder: Path) -> Run:
    """Read a run folder; what a run in progress does not have yet is left empty and named.

    Args:
        folder: The folder given to `leanseg train --output`.

    Raises:
        DatasetError: If the folder does not exist or is not a run.
        FileFormatError: If one of its files is damaged.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        msg = f"{folder}: there is no such folder; give the folder that `leanseg train` wrote"
        raise DatasetError(msg)
    if not any((folder / name).is_file() for name in ("recipe.yaml", "plan.json")):
        msg = (
            f"{folder}: not a run, it has neither recipe.yaml nor plan.json; "
            "give the folder that `leanseg train --output` wrote"
        )
        raise DatasetError(msg)
    numbered = [
        (int(path.name.removeprefix("fold_")), path)
        for path in folder.glob("fold_*")
        if path.is_dir() and path.name.removeprefix("fold_").isdecimal()
    ]
    folds = tuple(_read_fold(index, path) for index, path in sorted(numbered))
    recipe = folder / "recipe.yaml"
    splits = folder / "splits.json"
    run = Run(
        folder=folder,
        recipe_text=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        plan=_read_plan(folder / "plan.json"),
        data=_read_object(folder / "data.json"),
        environment=_read_object(folder / "environment.json"),
        splits=tuple(read_splits(splits)) if splits.is_file() else (),
        folds=folds,
        missing=(),
    )
    return Run(**{**_fields(run), "missing": tuple(_missing(run))})


def _fields(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}


def _missing(run: Run) -> list[str]:
    sentences = []
    for name, what, present in (
        ("recipe.yaml", "the recipe", run.recipe_text),
        ("plan.json", "the plan", run.plan),
        ("data.json", "what the data are", run.data),
        ("splits.json", "which cases were held back", run.splits),
        ("environment.json", "the environment", run.environment),
    ):
        if not present:
            sentences.append(f"{name} is missing, so {what} cannot be shown.")
    if not run.folds:
        sentences.append("No fold has been started: there is no folder fold_0.")
    for fold in run.folds:
        where = fold.folder.name
        if not fold.epochs:
            sentences.append(f"{where} has no finished epoch yet (metrics.jsonl).")
        if not fold.summary:
            sentences.append(f"{where} is still training or was stopped (no summary.json).")
        if fold.scores is None:
            sentences.append(f"{where} has no scores yet (no validation/scores.json).")
    if run.folds and len(run.folds) < len(run.splits):
        sentences.append(f"{len(run.folds)} of the split's {len(run.splits)} folds were started.")
    return sentences


def _read_fold(index: int, folder: Path) -> Fold:
    scores = folder / "validation" / "scores.json"
    return Fold(
        index=index,
        folder=folder,
        epochs=_read_lines(folder / "metrics.jsonl"),
        summary=_read_object(folder / "summary.json"),
        scores=read_scores(scores) if scores.is_file() else None,
    )


def _read_plan(path: Path) -> Plan | None:
    if not path.is_file():
        return None
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


def _read_lines(path: Path) -> tuple[dict[str, Any], ...]:
    """The JSON objects of a file with one on each line; empty where there is no file."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # a run in progress may be writing this very line
                break
            msg = f"{path}: line {number} is not readable as JSON ({error}); remove that line"
            raise FileFormatError(msg) from error
        rows.append(row)
    return tuple(rows)
