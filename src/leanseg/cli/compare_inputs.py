"""What `leanseg compare` is given: runs, score files, or predictions that are scored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from leanseg.cli.output import listed_labels, progress
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
from leanseg.evaluation.masks import merge_prediction_labels
from leanseg.evaluation.matching import reference_cases
from leanseg.reports.case_maps import Masks, ReadCase, References, case_reader
from leanseg.reports.run_folder import RunFolder, read_run_folder, short_names
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
        runs: Those of the methods that are runs.
        masks: Where the label maps of each method lie, unless scores alone were given.
    """

    references: Path | None
    labels: LabelValues | None
    prediction_labels: LabelValues | None
    n_workers: int = 0
    notes: list[str] = field(default_factory=list)
    cases: dict[str, Case] = field(default_factory=dict)
    runs: dict[str, RunFolder] = field(default_factory=dict)
    masks: dict[str, Masks] = field(default_factory=dict)
    _truth: References | None = None

    def read(self, given: Sequence[Path]) -> dict[str, Scores]:
        """The scores of each method by its name.

        Raises:
            LeansegError: If one has none, or cannot be read.
        """
        scores = {}
        for name, path in short_names(given).items():
            if (path / RECIPE_FILE).is_file():
                scores[name] = self._of_run(name, path)
            elif path.is_file() and path.suffix == ".json":
                scores[name] = read_scores(path)
            elif (path / _SCORES_FILE).is_file():
                scores[name] = read_scores(path / _SCORES_FILE)
            else:
                scores[name] = self._of_predictions(name, path)
            self.notes += [f"{name}: {note}" for note in scores[name].notes]
        return scores

    def scans(self, scores: Mapping[str, Scores]) -> dict[str, Scan]:
        """What is known of the scans of the cases that all have."""
        if self.references is not None:
            self.cases |= reference_cases(self.references)
        of_each = [{score.case for score in each.cases} for each in scores.values()]
        shared = set.intersection(*of_each)
        return {name: Scan.of(case) for name, case in self.cases.items() if name in shared}

    def reader(self, labels: Sequence[str]) -> ReadCase | None:
        """Reads what is shown of cases; None where scores alone were given."""
        if not self.masks:
            return None
        return case_reader(labels, self.masks, self.runs.values(), self._truth)

    def _of_run(self, name: str, folder: Path) -> Scores:
        run = read_run_folder(folder)
        if not run.scores.cases:
            raise LeansegError(
                f"{folder}: this run has no scores of test cases yet; train it to its end, or give "
                "folders of predictions and --references"
            )
        self.notes += [f"{folder.name}: {sentence}" for sentence in run.missing]
        self.cases |= {case.name: case for case in run.data.cases}
        self.runs[name], self.masks[name] = run, Masks.of_runs([run])
        return run.scores

    def _of_predictions(self, name: str, folder: Path) -> Scores:
        if not folder.exists():
            raise LeansegError(f"{folder}: there is no such file or folder; correct the path")
        if self.references is None:
            raise LeansegError(
                f"{folder}: is neither a run nor scores; to score it as predictions, name the "
                "references with --references FOLDER_OR_DATASET"
            )
        matched = match_cases(folder, self.references, allow_missing=True)
        pairs = [pair for pair in matched.pairs if pair.prediction is not None]
        # By name: of each tool its own values, and only the labels that it has.
        chosen, values = choose_labels(matched, self.labels, None)
        if values is None:
            values = self.prediction_labels
        else:
            typer.echo(f"leanseg: labels in {folder}: {listed_labels(values)}", err=True)
        ignored = choose_ignored(matched, chosen)
        with progress() as display:
            scores = evaluate_cases(
                pairs,
                chosen,
                prediction_labels=values,
                ignored_values=ignored,
                n_workers=self.n_workers,
                on_case=display.count(f"scoring {folder.name}", len(pairs)),
            )
        files = {pair.name: pair.prediction for pair in pairs if isinstance(pair.prediction, Path)}
        self.masks[name] = Masks(files, merge_prediction_labels(scores.labels, values))
        scans = {pair.name: pair.reference for pair in pairs if isinstance(pair.reference, Case)}
        self._truth = References(scans, scores.labels, ignored)
        return scores
