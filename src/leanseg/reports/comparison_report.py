"""The report of a comparison: several runs or prediction folders on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from leanseg.datasets import find_label
from leanseg.errors import LeansegError
from leanseg.evaluation.comparison import COMPARISON_DEFINITIONS, LEVEL, Comparison
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import METRIC_NAMES, METRICS
from leanseg.evaluation.pairing import pair_scores, reasons
from leanseg.evaluation.scores import Scores
from leanseg.files import write_text
from leanseg.reports.card import card
from leanseg.reports.case_maps import CaseMaps, ReadCase
from leanseg.reports.page import digits, number, png_address, render, svg_address
from leanseg.reports.panels import panels_png
from leanseg.reports.plots import (
    Group,
    bland_altman,
    box_plot,
    known_curves,
    learning_curve,
    series_colour,
)
from leanseg.reports.run_folder import RunFolder
from leanseg.reports.viewer import viewer_content, viewer_scripts

Paired = Mapping[str, Mapping[str, Sequence[LabelScore]]]


class TextTable(NamedTuple):
    """A table that is shown as it is.

    Attributes:
        title: Above it.
        rows: Heading to text, of each row; the first column names it.
        notes: Below it.
    """

    title: str
    rows: Sequence[Mapping[str, str]]
    notes: Sequence[str] = ()


def comparison_report(
    scores: Mapping[str, Scores],
    comparison: Comparison,
    output: str | Path,
    *,
    title: str = "Comparison",
    read_case: ReadCase | None = None,
    runs: Mapping[str, Sequence[RunFolder]] | None = None,
    notes: Sequence[str] = (),
    tables: Sequence[TextTable] = (),
) -> Path:
    """Write a comparison as one self-contained HTML file.

    Args:
        scores: Method to its scores, as they were compared.
        comparison: What `leanseg.compare(scores, ...)` gave.
        output: The file.
        title: Above the page.
        read_case: Reads what is shown of a case, as `case_reader` makes one; None shows none.
        runs: Method to the runs behind it, for learning curves and cards; where there are.
        notes: Sentences to be said above all.
        tables: Shown before the scores, such as a study's, with published figures.

    Raises:
        LeansegError: If the file cannot be written.
    """
    path = Path(output).expanduser()
    page = comparison_page(
        scores,
        comparison,
        title=title,
        read_case=read_case,
        runs=runs or {},
        notes=notes,
        tables=tables,
    )
    write_text(path, page, in_new_folder=False)
    return path


def comparison_page(
    scores: Mapping[str, Scores],
    comparison: Comparison,
    *,
    title: str,
    read_case: ReadCase | None,
    runs: Mapping[str, Sequence[RunFolder]],
    notes: Sequence[str] = (),
    tables: Sequence[TextTable] = (),
) -> str:
    """A comparison as HTML; arguments as for `comparison_report`."""
    paired, _ = pair_scores(scores, comparison.metric)
    cases, problems = _cases(comparison, paired, read_case)
    labels = list(paired)
    cards = {method: card(each) for method, each in runs.items() if each}
    metric = METRICS[METRIC_NAMES.index(comparison.metric)]
    return render(
        "comparison.html.j2",
        viewer_scripts() if cases else (),
        kind="leanseg comparison",
        title=title,
        tables=tables,
        scores=scores,
        found=comparison,
        metric=metric,
        n_digits=max(digits(metric), 3) if not metric.unit else digits(metric),
        metrics=METRICS,
        level=LEVEL,
        label_in=find_label,
        notes=[*notes, *(f"Left out: {reason}." for reason in reasons(comparison.left_out))],
        box_plots=list(_box_plots(comparison, paired, scores)),
        volumes=list(_volumes(paired, scores)),
        rows=list(_rows(comparison, paired)),
        cases=cases,
        problems=problems,
        viewer_content={maps.name: viewer_content(maps, labels) for _, maps in cases},
        side_by_side=_side_by_side(comparison, paired, scores, [maps for _, maps in cases]),
        methods_of=lambda name: dict(
            zip(scores, (fmean(v) for v in _by_method(comparison, paired, name)), strict=True)
        ),
        curves=list(_curves(runs)),
        colours={method: series_colour(n) for n, method in enumerate(runs)},
        cards=cards,
        definitions={comparison.metric: metric.definition} | COMPARISON_DEFINITIONS,
    )


def ranked_cases(comparison: Comparison, paired: Paired) -> list[str]:
    """Cases from the best to the worst by the mean of the metric over labels and methods."""
    better = METRICS[METRIC_NAMES.index(comparison.metric)].better
    sign = -1 if better == "higher" else 1
    names = {case for entries in paired.values() for case in entries}
    return sorted(names, key=lambda name: (sign * _mean(comparison, paired, name), name))


def shown_places(n_cases: int) -> dict[str, int]:
    """Titles to places among cases from the best to the worst, as far as there are so many.

    With an even number of cases the median is the better of the two in the middle.
    """
    last = n_cases - 1
    if n_cases < 3:
        return ({}, {"The only case": 0}, {"Best": 0, "Worst": 1})[n_cases]
    return {"Best": 0, "Median": last // 2, "Worst": last}


def read_shown_cases(
    comparison: Comparison, scores: Mapping[str, Scores], read_case: ReadCase
) -> tuple[list[CaseMaps], dict[tuple[str, str], str]]:
    """The best, the median and the worst case, and what stands below their panels.

    Raises:
        LeansegError: If one cannot be read.
    """
    paired, _ = pair_scores(scores, comparison.metric)
    ranked = ranked_cases(comparison, paired)
    found = [read_case(ranked[place]) for place in shown_places(len(ranked)).values()]
    return found, _captions(comparison, paired, scores, found)


def _by_method(comparison: Comparison, paired: Paired, case: str) -> list[list[float]]:
    """For each method its values of a case, one a label; of volume differences the size."""
    near_zero = METRICS[METRIC_NAMES.index(comparison.metric)].better == "near zero"
    entries = [found[case] for found in paired.values() if case in found]
    values = [[score.metrics[comparison.metric] or 0.0 for score in each] for each in entries]
    return [[abs(v) if near_zero else v for v in column] for column in zip(*values, strict=True)]


def _mean(comparison: Comparison, paired: Paired, case: str) -> float:
    return fmean(fmean(values) for values in _by_method(comparison, paired, case))


def _cases(
    comparison: Comparison, paired: Paired, read_case: ReadCase | None
) -> tuple[list[tuple[str, CaseMaps]], list[str]]:
    """Best, median and worst case with their maps, and why some are not shown."""
    found: list[tuple[str, CaseMaps]] = []
    problems: list[str] = []
    ranked = ranked_cases(comparison, paired)
    if read_case is None:
        return found, ["Scores alone were given, no masks, so there is nothing to show."]
    for title, place in shown_places(len(ranked)).items():
        try:
            found.append((title, read_case(ranked[place])))
        except (LeansegError, OSError) as error:
            problems.append(f"{title}, {ranked[place]}: {error}.")
    return found, problems


def _captions(
    comparison: Comparison,
    paired: Paired,
    scores: Mapping[str, Scores],
    cases: Sequence[CaseMaps],
) -> dict[tuple[str, str], str]:
    metric = METRICS[METRIC_NAMES.index(comparison.metric)]
    captions = {}
    for maps in cases:
        each = _by_method(comparison, paired, maps.name)
        for method, values in zip(scores, each, strict=True):
            told = f"{metric.title} {number(fmean(values), digits(metric))} {metric.unit}"
            captions[maps.name, method] = told.strip()
    return captions


def _side_by_side(
    comparison: Comparison,
    paired: Paired,
    scores: Mapping[str, Scores],
    cases: Sequence[CaseMaps],
) -> str | None:
    if not any(maps.predictions for maps in cases):
        return None
    captions = _captions(comparison, paired, scores, cases)
    return png_address(panels_png(cases, list(paired), captions))


def _box_plots(
    comparison: Comparison, paired: Paired, scores: Mapping[str, Scores]
) -> Iterator[tuple[str, str]]:
    metric = METRICS[METRIC_NAMES.index(comparison.metric)]
    unit = f" [{metric.unit}]" if metric.unit else ""
    for label, entries in paired.items():
        groups = []
        for n, method in enumerate(scores):
            values = [found[n].metrics[metric.name] for found in entries.values()]
            if metric.better == "near zero":
                values = [None if value is None else abs(value) for value in values]
            groups.append(Group(method, values))
        title = f"{metric.title}{unit}, {label}"
        limit = 1.0 if metric.better == "higher" and not metric.unit else None
        figure = box_plot(groups, title, upper_limit=limit, joined=True)
        if figure is not None:
            yield svg_address(figure), f"{title}: a box for each method, lines join each case"


def _volumes(paired: Paired, scores: Mapping[str, Scores]) -> Iterator[tuple[str, str]]:
    for label, entries in paired.items():
        groups = {
            method: [found[n] for found in entries.values()] for n, method in enumerate(scores)
        }
        figure = bland_altman(groups, label)
        if figure is not None:
            yield svg_address(figure), f"Bland-Altman plots of the volume of {label}"


def _rows(comparison: Comparison, paired: Paired) -> Iterator[dict[str, Any]]:
    """Every case and label with the value of each method."""
    for label, entries in paired.items():
        for case, found in entries.items():
            values = [score.metrics[comparison.metric] for score in found]
            known = [value for value in values if value is not None]
            reference = found[0].metrics["reference_ml"]
            yield {
                "case": case,
                "label": label,
                "values": values,
                "apart": max(known) - min(known),
                "reference_ml": reference,
            }


def _curves(runs: Mapping[str, Sequence[RunFolder]]) -> Iterator[list[tuple[str, str]]]:
    """A row of panels against epochs and one against time, a colour for each method."""
    series = [
        (fold, series_colour(n))
        for n, each in enumerate(runs.values())
        for run in each
        for fold in run.folds
        if fold.epochs
    ]
    if not series:
        return
    folds, colours = zip(*series, strict=True)
    for against, name in (("epoch", "epochs"), ("elapsed_s", "time")):
        yield [
            (
                svg_address(learning_curve(folds, curve, against, colours)),
                f"{curve.title} against {name}",
            )
            for curve in known_curves(folds)
        ]
