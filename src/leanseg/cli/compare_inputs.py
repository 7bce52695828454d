"""What `leanseg compare` is given: runs, score files, or predictions that are scored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from leanseg.cli.output import progress
from leanseg.datasets import Case
from leanseg.errors import LeansegError
from leanseg.evaluation import (
    Scan,
    Scores,
    choose_ignored,
    choose_labels,
    evaluate_cases,
    match_cases,
    read_scores,
)
from leanseg.evaluation.labels import LabelValues
from leanseg.evaluation.matching import recorded_labels, reference_cases
from leanseg.reports.run_folder import read_run_folder
from leanseg.training.folder import RECIPE_FILE

_SCORES_FILE = "scores.json"


@dataclass
class Inputs:
    """Reads what is compared.

    Attributes:
        references: What predictions are scored against.
        labels: The labels of the references; None for all of a dataset.
        prediction_labels: Their values in predictions beside which nothing tells them.
        n_workers: Cases that are scored at the same time.
        notes: What is to be said of what was read.
        cases: Case name to what tells its scan.
    """

    references: Path | None
    labels: LabelValues | None
    prediction_labels: LabelValues | None
    n_workers: int = 0
    notes: list[str] = field(default_factory=list)
    cases: dict[str, Case] = field(default_factory=dict)

    def read(self, given: Sequence[Path]) -> dict[str, Scores]:
        """The scores of each method by its name.

        Raises:
            LeansegError: If one has none, or cannot be read.
        """
        scores = {}
        for name, path in _names(given).items():
            if (path / RECIPE_FILE).is_file():
                scores[name] = self._of_run(path)
            elif path.is_file() and path.suffix == ".json":
                scores[name] = read_scores(path)
            elif (path / _SCORES_FILE).is_file():
                scores[name] = read_scores(path / _SCORES_FILE)
            else:
                scores[name] = self._of_predictions(path)
            self.notes += [f"{name}: {note}" for note in scores[name].notes]
        return scores

    def scans(self, scores: Mapping[str, Scores]) -> dict[str, Scan]:
        """What is known of the scans of the cases that all have."""
        if self.references is not None:
            self.cases |= reference_cases(self.references)
        of_each = [{score.case for score in each.cases} for each in scores.values()]
        shared = set.intersection(*of_each)
        return {name: Scan.of(case) for name, case in self.cases.items() if name in shared}

    def _of_run(self, folder: Path) -> Scores:
        run = read_run_folder(folder)
        if not run.scores.cases:
            raise LeansegError(
                f"{folder}: this run has no scores of test cases yet; train it to its end, or give "
                "folders of predictions and --references"
            )
        self.notes += [f"{folder.name}: {sentence}" for sentence in run.missing]
        self.cases |= {case.name: case for case in run.data.cases}
        return run.scores

    def _of_predictions(self, folder: Path) -> Scores:
        if not folder.exists():
            raise LeansegError(f"{folder}: there is no such file or folder; correct the path")
        if self.references is None:
            raise LeansegError(
                f"{folder}: is neither a run nor scores; to score it as predictions, name the "
                "references with --references FOLDER_OR_DATASET"
            )
        matched = match_cases(folder, self.references, allow_missing=True)
        pairs = [pair for pair in matched.pairs if pair.prediction is not None]
        wanted = self.labels or matched.labels
        # By name: of each tool its own values, and only the labels that it has.
        recorded = None if wanted is None else recorded_labels(folder, wanted)
        if wanted is None or recorded is None:
            chosen, values = choose_labels(matched, self.labels, self.prediction_labels)
        else:
            chosen, values = {name: wanted[name] for name in recorded}, recorded
            told = ", ".join(f"{name}={_told(value)}" for name, value in recorded.items())
            typer.echo(f"leanseg: labels in {folder} by what lies beside: {told}", err=True)
        with progress() as display:
            return evaluate_cases(
                pairs,
                chosen,
                prediction_labels=values,
                ignored_values=choose_ignored(matched, chosen),
                n_workers=self.n_workers,
                on_case=display.count(f"scoring {folder.name}", len(pairs)),
            )


def _told(value: int | Sequence[int]) -> str:
    return str(value) if isinstance(value, int) else "+".join(map(str, value))


def _names(given: Sequence[Path]) -> dict[str, Path]:
    """A short name for each: that of its folder, or the whole path where two would be alike."""
    short = [
        path.absolute().parent.name if path.name == _SCORES_FILE else _stem(path) for path in given
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
