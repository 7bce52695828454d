"""The results of a study: scores by method and dataset, and the tables made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from leanseg.errors import LeansegError
from leanseg.evaluation import METRIC_NAMES, METRICS, Comparison, Scores, compare, read_scores
from leanseg.evaluation.pairing import reasons
from leanseg.files import write_csv, write_text
from leanseg.reports.case_maps import Masks, case_reader
from leanseg.reports.comparison_report import TextTable, comparison_report
from leanseg.reports.run_folder import RunFolder, read_run_folder
from leanseg.studies.cells import Cell, ResolvedStudy, read_resolved
from leanseg.studies.definition import Published, Study
from leanseg.studies.work import cell_is_done, elsewhere_scores, run_folder

MEAN_OF_LABELS = "mean of labels"
QUICK = "QUICK: less data and training than the study asks for; to try it, not to report it."
RESULTS_FILE, TABLE_FILE = "results.csv", "table"


@dataclass(frozen=True)
class CellResult:
    """A cell that is done.

    Attributes:
        cell: What it is.
        run: Its run's folder; model files and learning curves lie there.
        scores: By the dataset that is scored: of the fold's test cases on its own, of all cases
            elsewhere.
        summary: `summary.json` of its fold: parameters, steps, seconds.
    """

    cell: Cell
    run: RunFolder
    scores: Mapping[str, Scores]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A method's figures in one metric; None where there is nothing to compute them from.

    Attributes:
        by_case: Each case's value, in the mean over seeds; without cases that are undefined.
        n_undefined: Cases of which a seed has no value.
        seed_sd: Standard deviation over seeds of the mean over cases.
        worst: Of a case.
        published: What was published, if anything.
    """

    by_case: Mapping[str, float] = field(default_factory=dict)
    n_undefined: int = 0
    seed_sd: float | None = None
    worst: float | None = None
    published: Published | None = None

    @property
    def mean(self) -> float | None:
        """Over cases."""
        return fmean(self.by_case.values()) if self.by_case else None

    @property
    def sd(self) -> float | None:
        """Over cases (n - 1)."""
        return stdev(self.by_case.values()) if len(self.by_case) > 1 else None


@dataclass(frozen=True)
class TableRow:
    """A method's line.

    Attributes:
        method: Its name.
        figures: By metric.
        n_done: Cells that are done.
        n_cells: Of how many.
        cpu_minutes: Of a cell's training, in the mean.
        parameters: That are trained.
        steps: Of a cell, in the mean.
        notes: Footnotes.
    """

    method: str
    figures: Mapping[str, Figure]
    n_done: int = 0
    n_cells: int = 0
    cpu_minutes: float | None = None
    parameters: int | None = None
    steps: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """All methods on one dataset and label.

    Attributes:
        trained_on: The dataset that cells trained on.
        scored_on: That they are scored on.
        label: Its name, or `MEAN_OF_LABELS`.
        rows: In the study's order; those that are published alone come last.
        notes: Footnotes of all of it.
    """

    trained_on: str
    scored_on: str
    label: str
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is of."""
        where = self.scored_on
        if self.trained_on != self.scored_on:
            where = f"{self.scored_on}, trained on {self.trained_on}"
        return f"{where}: {self.label}"

    def cells(self) -> tuple[list[dict[str, str]], list[str]]:
        """Heading to text, of each row; and the footnotes, numbered."""
        notes: list[str] = []

        def marks(texts: Sequence[str]) -> str:
            for text in texts:
                if text not in notes:
                    notes.append(text)
            return "".join(f" [{notes.index(text) + 1}]" for text in texts)

        metrics = list(self.rows[0].figures) if self.rows else []
        published = {
            metric for row in self.rows for metric, each in row.figures.items() if each.published
        }
        has_seeds = any(
            each.seed_sd is not None for row in self.rows for each in row.figures.values()
        )
        told = []
        for row in self.rows:
            first = row.figures[metrics[0]]
            cases = str(len(first.by_case)) if first.by_case else "-"
            line = {
                "method": row.method + marks(row.notes),
                "cells": f"{row.n_done}/{row.n_cells}" if row.n_cells else "-",
                "cases": cases,
            }
            for metric, figure in row.figures.items():
                if metric in published:
                    line[f"{metric} published"] = _published(figure.published) + marks(
                        _notes_of(figure.published)
                    )
                undefined = (
                    [f"{figure.n_undefined} case(s) have no {metric}"] if figure.n_undefined else []
                )
                line[metric] = _mean_sd(figure.mean, figure.sd) + marks(undefined)
                if has_seeds:
                    line[f"{metric} over seeds"] = (
                        "-" if figure.seed_sd is None else f"± {_number(figure.seed_sd)}"
                    )
                line[f"{metric} worst"] = "-" if figure.worst is None else _number(figure.worst)
            line["CPU min"] = "-" if row.cpu_minutes is None else f"{row.cpu_minutes:.2f}"
            line["parameters"] = "-" if row.parameters is None else f"{row.parameters:,}"
            line["steps"] = "-" if row.steps is None else f"{row.steps:,.0f}"
            told.append(line)
        return told, [*(f"[{n}] {text}" for n, text in enumerate(notes, 1)), *self.notes]

    def records(self) -> Iterator[dict[str, Any]]:
        """A line for each method and metric, as `table.csv` has them."""
        for row in self.rows:
            for metric, figure in row.figures.items():
                published = figure.published
                yield {
                    "trained_on": self.trained_on,
                    "scored_on": self.scored_on,
                    "label": self.label,
                    "method": row.method,
                    "metric": metric,
                    "cases": len(figure.by_case),
                    "undefined": figure.n_undefined,
                    "mean": figure.mean,
                    "sd": figure.sd,
                    "seed_sd": figure.seed_sd,
                    "worst": figure.worst,
                    "published": None if published is None else published.value,
                    "published_sd": None if published is None else published.sd,
                    "cpu_minutes": row.cpu_minutes,
                    "parameters": row.parameters,
                    "steps": row.steps,
                    "cells_done": row.n_done,
                    "cells": row.n_cells,
                    "notes": "; ".join((*row.notes, *_notes_of(published))),
                }


def _notes_of(published: Published | None) -> list[str]:
    return [published.note] if published is not None and published.note else []


def _published(published: Published | None) -> str:
    return "-" if published is None else _mean_sd(published.value, published.sd)


def _mean_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "-"
    return _number(mean) if sd is None else f"{_number(mean)} ± {_number(sd)}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


@dataclass(frozen=True)
class StudyResults:
    """What a study has found so far.

    Attributes:
        folder: The study's.
        resolved: What was asked, with its cells.
        done: The cells that are done, in the order of the study's.
    """

    folder: Path
    resolved: ResolvedStudy
    done: tuple[CellResult, ...]

    @property
    def study(self) -> Study:
        """What was asked."""
        return self.resolved.study

    @property
    def methods(self) -> list[str]:
        """The rows' names, in order."""
        return list(dict.fromkeys(cell.method for cell in self.resolved.cells))

    @property
    def missing(self) -> list[str]:
        """Names of the cells that are not done."""
        done = {each.cell.name for each in self.done}
        return [cell.name for cell in self.resolved.cells if cell.name not in done]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Datasets that were trained on, with those that their models are scored on."""
        study = self.study
        return [
            (trained, scored)
            for trained in study.trained_on
            for scored in (trained, *study.scored_elsewhere(trained))
            if any(each.scores[scored].cases for each in self.of_dataset(trained))
        ]

    def of_dataset(self, trained_on: str, method: str | None = None) -> list[CellResult]:
        """The cells that are done of a dataset, and of a method."""
        return [
            each
            for each in self.done
            if each.cell.dataset == trained_on and method in (None, each.cell.method)
        ]

    def scores(self, trained_on: str, scored_on: str | None = None) -> dict[str, Scores]:
        """Method to the scores of all its folds and seeds, as `leanseg.compare` takes them.

        Args:
            trained_on: A dataset that cells train on.
            scored_on: The dataset that is scored; None for the same.
        """
        found = {}
        for method in self.methods:
            of_cells = [
                each.scores[scored_on or trained_on] for each in self.of_dataset(trained_on, method)
            ]
            cases = tuple(score for each in of_cells for score in each.cases)
            if cases:
                found[method] = Scores(of_cells[0].labels, cases, of_cells[0].settings)
        return found

    def tables(self) -> list[Table]:
        """A table for each dataset and label; of several labels their mean comes first."""
        tables = []
        for trained, scored in self.pairs:
            labels = list(next(iter(self.scores(trained, scored).values())).labels)
            for label in [MEAN_OF_LABELS, *labels] if len(labels) > 1 else labels:
                tables.append(self._table(trained, scored, label, only=len(labels) == 1))
        return tables

    def _table(self, trained: str, scored: str, label: str, *, only: bool) -> Table:
        own = [
            each
            for each in self.study.published
            if (each.dataset or trained) == scored
            and (each.label or (label if only else MEAN_OF_LABELS)).casefold() == label.casefold()
        ]
        methods = self.methods
        rows = [self._row(trained, scored, label, method, own) for method in methods]
        for name in dict.fromkeys(each.row for each in own if each.row not in methods):
            figures = self._published_figures(name, own)
            reason = next((each.reason for each in own if each.row == name and each.reason), None)
            alone = f"published alone: {reason or 'this study has no such row'}"
            rows.append(TableRow(name, figures, notes=(alone,)))
        note = self.study.datasets[scored].note
        return Table(trained, scored, label, tuple(rows), () if note is None else (note,))

    def _published_figures(self, row: str, own: Sequence[Published]) -> dict[str, Figure]:
        known = {each.metric: each for each in own if each.row == row}
        return {metric: Figure(published=known.get(metric)) for metric in self.study.metrics}

    def _row(
        self, trained: str, scored: str, label: str, method: str, own: Sequence[Published]
    ) -> TableRow:
        cells = [
            cell for cell in self.resolved.cells if (cell.method, cell.dataset) == (method, trained)
        ]
        done = self.of_dataset(trained, method)
        figures = {
            metric: _figure(done, scored, label, metric, empty.published)
            for metric, empty in self._published_figures(method, own).items()
        }
        note = self.study.recipes[cells[0].recipe].note
        if not done:
            return TableRow(method, figures, 0, len(cells), notes=("no cell is done",))
        summaries = [each.summary for each in done]
        return TableRow(
            method,
            figures,
            len(done),
            len(cells),
            fmean(each["train_cpu_seconds"] for each in summaries) / 60,
            summaries[0]["parameters"],
            fmean(each["steps"] for each in summaries),
            () if note is None else (note,),
        )

    def comparisons(self) -> tuple[dict[tuple[str, str, str], Comparison], list[str]]:
        """Tests of every two methods, by dataset trained on, scored on, and metric.

        Returns:
            The comparisons, paired by case with seeds averaged, and why others are not there.
        """
        found, notes = {}, []
        for trained, scored in self.pairs:
            scores = self.scores(trained, scored)
            for metric in self.study.metrics if len(scores) > 1 else ():
                if not METRICS[METRIC_NAMES.index(metric)].better:
                    continue
                try:
                    each = compare(scores, metric)
                except LeansegError as error:
                    notes.append(f"{scored}, {metric}: not tested: {error}")
                    continue
                found[trained, scored, metric] = each
                notes += [f"{scored}, {metric}: left out of the tests: {reason}"
                          for reason in reasons(each.left_out)]  # fmt: skip
        return found, notes


def _figure(
    cells: Sequence[CellResult], scored: str, label: str, metric: str, published: Published | None
) -> Figure:
    # Case to seed to the values of its labels, of all folds that scored it.
    values: dict[str, dict[int, list[float | None]]] = {}
    for each in cells:
        for score in each.scores[scored].cases:
            if label in (score.label, MEAN_OF_LABELS):
                of_case = values.setdefault(score.case, {}).setdefault(each.cell.seed, [])
                of_case.append(score.metrics[metric])
    by_case: dict[str, float] = {}
    by_seed: dict[int, list[float]] = {}
    for case, of_seeds in values.items():
        # A label that a case lacks is no reason to leave the others out of their mean.
        kept = {
            seed: [value for value in found if value is not None]
            for seed, found in of_seeds.items()
        }
        whole = label == MEAN_OF_LABELS and all(kept.values())
        if whole or all(None not in found for found in of_seeds.values()):
            means = {seed: fmean(found) for seed, found in kept.items()}
            by_case[case] = fmean(means.values())
            for seed, mean in means.items():
                by_seed.setdefault(seed, []).append(mean)
    badness = {"higher": lambda v: -v, "lower": lambda v: v, "near zero": abs}
    better = METRICS[METRIC_NAMES.index(metric)].better
    return Figure(
        by_case=by_case,
        n_undefined=len(values) - len(by_case),
        seed_sd=stdev(map(fmean, by_seed.values())) if len(by_seed) > 1 else None,
        worst=max(by_case.values(), key=badness[better]) if by_case and better else None,
        published=published,
    )


def read_study(folder: Path | str) -> StudyResults:
    """The results of a study, finished or still in progress.

    Args:
        folder: The folder given to `leanseg study --output`.

    Raises:
        LeansegError: If it is not a study, or a file of it is missing or damaged.
    """
    root = Path(folder)
    resolved = read_resolved(root)
    done = []
    for cell in resolved.cells:
        if not cell_is_done(root, resolved.study, cell):
            continue
        run = read_run_folder(run_folder(root, cell))
        fold = next(each for each in run.folds if each.index == cell.fold)
        scores = {cell.dataset: fold.scores}
        for name in resolved.study.scored_elsewhere(cell.dataset):
            scores[name] = read_scores(elsewhere_scores(root, cell, name))
        done.append(CellResult(cell, run, scores, fold.summary))
    return StudyResults(root, resolved, tuple(done))


def write_results(results: StudyResults) -> tuple[list[Table], list[str]]:
    """Write `results.csv`, the tables and the comparisons into the study's folder.

    Returns:
        The tables, and what is to be said below them.

    Raises:
        LeansegError: If they cannot be written.
    """
    folder, study = results.folder, results.study
    tables = results.tables()
    comparisons, notes = results.comparisons()
    quick = {"quick": "yes" if study.is_quick else "no"}
    columns = ["cell", "method", "trained_on", "fold", "seed", "scored_on", "case", "label"]
    write_csv(
        folder / RESULTS_FILE,
        [*columns, "metric", "value", "quick"],
        (row | quick for row in _records(results)),
    )
    records = [row | quick for table in tables for row in table.records()]
    if records:
        write_csv(folder / f"{TABLE_FILE}.csv", list(records[0]), records)
    for (trained, scored, metric), each in comparisons.items():
        mark = "-quick" if study.is_quick else ""
        path = folder / f"compare-{trained}-{scored}-{metric}{mark}.json"
        each.to_json(path)
        each.to_csv(path.with_suffix(".csv"))
    said = [*study.notes, *results.resolved.notes, *notes, *_unplaced(results, tables)]
    if results.missing:
        said.append(f"not done: {', '.join(results.missing)}")
    # Four cases of small trainings can pass a test; that names no winner.
    tested = {} if study.is_quick else comparisons
    conclusions = [line for key, each in tested.items() for line in _conclusions(key, each)]
    write_text(folder / f"{TABLE_FILE}.md", _markdown(study, tables, [*conclusions, *said]))
    return tables, [*conclusions, *said]


def write_reports(results: StudyResults) -> list[Path]:
    """Write what was found in the study's first metric as HTML, a page for each pair of datasets.

    Returns:
        `report.html`, and of further pairs `report-TRAINED_ON-SCORED_ON.html`; nothing where no
        two methods can be compared.

    Raises:
        LeansegError: If a page cannot be written.
    """
    study, paths = results.study, list[Path]()
    comparisons, _ = results.comparisons()
    tables = results.tables()
    for (trained, scored, metric), found in comparisons.items():
        if metric != study.metrics[0]:
            continue
        name = f"report-{trained}-{scored}" if paths else "report"
        runs = {
            method: [each.run for each in results.of_dataset(trained, method)]
            for method in results.scores(trained, scored)
        }
        masks = {method: Masks.of_runs(each) for method, each in runs.items()}
        own = [
            TextTable(table.title, *table.cells())
            for table in tables
            if (table.trained_on, table.scored_on) == (trained, scored)
        ]
        path = comparison_report(
            results.scores(trained, scored),
            found,
            results.folder / f"{name}.html",
            title=study.title or study.name,
            # Masks of other datasets lie in no run.
            read_case=case_reader(
                found.labels, masks, [each for of in runs.values() for each in of]
            )
            if trained == scored
            else None,
            runs=runs,
            notes=[*([QUICK] if study.is_quick else []), study.about, *study.notes],
            tables=own,
        )
        paths.append(path)
    return paths


def _records(results: StudyResults) -> Iterator[dict[str, Any]]:
    for each in results.done:
        cell = each.cell
        for scored, scores in each.scores.items():
            for score in scores.cases:
                for metric in results.study.metrics:
                    yield {
                        "cell": cell.name,
                        "method": cell.method,
                        "trained_on": cell.dataset,
                        "fold": cell.fold,
                        "seed": cell.seed,
                        "scored_on": scored,
                        "case": score.case,
                        "label": score.label,
                        "metric": metric,
                        "value": score.metrics[metric],
                    }


def _unplaced(results: StudyResults, tables: Sequence[Table]) -> Iterator[str]:
    """What was published of labels that no table is of; a metric that is not asked for is said."""
    placed = {
        id(figure.published) for t in tables for row in t.rows for figure in row.figures.values()
    }
    for each in results.study.published if tables else ():
        if id(each) not in placed:
            of = f" of {each.label}" if each.label else ""
            where = f" on {each.dataset}" if each.dataset else ""
            yield (
                f"published without a reproduced figure: {each.row}, {each.metric}{of}{where}: "
                f"{_published(each)}{f' ({each.note})' if each.note else ''}"
            )


def _conclusions(key: tuple[str, str, str], found: Comparison) -> Iterator[str]:
    """Who is better, of each label; the comparison's files hold all the rest."""
    trained, scored, metric = key
    where = scored if trained == scored else f"{scored} (trained on {trained})"
    for group in found.groups:
        better = [pair for pair in group.pairs if pair.better is not None]
        said = [
            f"{pair.better} better than {pair.first if pair.better == pair.second else pair.second}"
            f" by {abs(pair.mean_difference):.3g}"
            for pair in better
        ]
        n = len(group.pairs) - len(better)
        told = [*said, *([f"{n} pair(s) not told apart"] if n else [])]
        if len(group.cases) == 1:
            yield f"{where}, {group.label}, {metric}: one case, not tested"
        else:
            yield f"{where}, {group.label}, {metric}, {len(group.cases)} cases: {'; '.join(told)}"


def _markdown(study: Study, tables: Sequence[Table], said: Sequence[str]) -> str:
    lines = [f"# {study.title or study.name}", ""]
    if study.is_quick:
        lines += [f"**{QUICK}**", ""]
    for table in tables:
        rows, notes = table.cells()
        lines += [f"## {table.title}", ""]
        if rows:
            lines += [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"]
            lines += [f"| {' | '.join(map(_escaped, row.values()))} |" for row in rows]
        lines += ["", *(f"{note}  " for note in notes), ""]
    if not tables:
        lines += ["No cell is done.", ""]
    lines += [f"- {text}" for text in said]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
