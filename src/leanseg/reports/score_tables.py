"""Scores as tiles, tables and box plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import DEFINITIONS, METRICS, Metric
from leanseg.evaluation.metrics import metric as metric_named
from leanseg.evaluation.scores import Scores
from leanseg.reports.markup import (
    MISSING,
    Markup,
    cell,
    definitions,
    details,
    join,
    note,
    number,
    row_head,
    section,
    table,
    tag,
    text_cell,
)
from leanseg.reports.plots import Group, as_svg, box_plot
from leanseg.reports.run import Run

_FOLD_METRICS = ("dice", "hausdorff95_mm", "surface_dice")
_DIGITS = {"": 3, "mm": 2, "ml": 1, "%": 1}
Middle = Mapping[tuple[str, str], float | None]


@dataclass(frozen=True)
class MiddleBaseline:
    """What a constant mask scores.

    Attributes:
        dice: (case, label) to Dice, for those that could be computed.
        problem: Why none or not all could be computed, or None.
    """

    dice: Middle
    problem: str | None


def heading(metric: Metric) -> str:
    """Title with unit, such as "Hausdorff [mm]"."""
    return f"{metric.title} [{metric.unit}]" if metric.unit else metric.title


def digits(metric: Metric) -> int:
    """Decimal places to show; specificity is close to 1 and needs more."""
    return 5 if metric.name == "specificity" else _DIGITS[metric.unit]


def headline_tiles(run: Run) -> list[Markup]:
    """One tile a label: mean whole-case Dice with its spread."""
    tiles = []
    for label, metrics in (run.scores.summary if run.scores is not None else {}).items():
        found = metrics["dice"]
        if found["mean"] is None:
            continue
        spread = "" if found["sd"] is None else f" ± {number(found['sd'], 3)}"
        over = f"over {found['n']} whole cases" if found["n"] > 1 else "of one whole case"
        more = (
            f"mean{' ± SD' if spread else ''} {over}; median {number(found['median'], 3)}, "
            f"worst {number(found['worst'], 3)} ({found['worst_case']})"
        )
        tiles.append(
            tag(
                "div",
                tag("span", f"Dice, {label}", class_="what"),
                tag("strong", number(found["mean"], 3), tag("small", spread)),
                tag("span", more, class_="more"),
                class_="tile headline",
            )
        )
    return tiles


def scores_section(run: Run, middle: MiddleBaseline) -> Markup:
    """Score table of each label, box plots, the middle, folds, cases and definitions."""
    if run.scores is None:
        missing = note("There are no scores yet: no validation case has been predicted and scored.")
        return section("Scores", "scores", missing)
    parts = [*(_label_table(run.scores, label) for label in run.scores.labels)]
    parts.append(_box_plots(run, middle))
    if len([fold for fold in run.folds if fold.cases]) > 1:
        parts.append(_fold_table(run))
    parts.append(_case_table(run, middle))
    parts.append(_definitions(run.scores))
    return section("Scores", "scores", *parts)


def _label_table(scores: Scores, label: str) -> Markup:
    if not scores.of_label(label):
        return note(f"{label}: no validation case annotates it, so it has no score.")
    rows = []
    for metric in METRICS:
        found = scores.summary[label][metric.name]
        numbers = [cell(found[key], digits(metric)) for key in ("mean", "sd", "median", "worst")]
        worst_case = tag("td", found["worst_case"] or MISSING)
        counts = [cell(found["n"]), cell(found["n_undefined"])]
        rows.append([row_head(heading(metric)), *numbers, worst_case, *counts])
    head = ("Metric", "Mean", "± SD", "Median", "Worst", "Worst case", "Cases", "Undefined")
    return table(head, rows, caption=f"{label}: over the validation cases")


def _box_plots(run: Run, middle: MiddleBaseline) -> Markup:
    dice, distance = [], []
    for label in run.labels:
        scored = [score for score in run.cases if score.label == label]
        dice.append(Group(label, [score.metrics["dice"] for score in scored]))
        baseline = [middle.dice.get((score.case, label)) for score in scored]
        if any(value is not None for value in baseline):
            dice.append(Group(f"{label}:\nthe middle", baseline, muted=True))
        distance.append(Group(label, [score.metrics["hausdorff95_mm"] for score in scored]))
    pictures = []
    for groups, title, limits in (
        (dice, "Dice (grey: the same mask for every scan)", (0.0, 1.0)),
        (distance, "Hausdorff 95 % [mm]", (0.0, None)),
    ):
        if any(value is not None for group in groups for value in group.values):
            description = f"Box plot of {title} with a point for every validation case"
            pictures.append(as_svg(box_plot(groups, title, limits=limits), description))
    explanation = tag(
        "p",
        "Boxes: quartiles and median; whiskers: the farthest case within 1.5 interquartile "
        "ranges; points: cases.",
        class_="fine",
    )
    return join([tag("div", *pictures, class_="plots"), explanation])


def middle_section(run: Run, middle: MiddleBaseline) -> Markup:
    """Whether the network has learned more than where the label usually lies."""
    if not run.cases:
        return Markup()
    explanation = tag(
        "p",
        "The middle is a constant mask: the training cases’ average label in coordinates "
        "relative to the scan, cut at the level that suits the training cases best. It never "
        "looks at the scan. A network that does not clearly beat it has learned where the label "
        "usually lies, not what it looks like; where scans are cropped around their target, the "
        "middle is a strong guess.",
    )
    rows = []
    for label in run.labels:
        pairs = [
            (score.metrics["dice"], middle.dice.get((score.case, label)))
            for score in run.cases
            if score.label == label
        ]
        both = [(own, base) for own, base in pairs if own is not None and base is not None]
        if not both:
            continue
        own_mean, base_mean = (sum(values) / len(both) for values in zip(*both, strict=True))
        better = sum(own > base for own, base in both)
        rows.append(
            [
                row_head(label),
                cell(own_mean, 3),
                cell(base_mean, 3),
                cell(own_mean - base_mean, 3),
                tag("td", f"{better} of {len(both)}", class_="n", data_value=better),
            ]
        )
    head = ("Label", "Dice, network", "Dice, the middle", "Gain", "Cases where it is better")
    parts = [explanation]
    if rows:
        parts.append(table(head, rows, caption="The network beside the middle, mean over cases"))
    if middle.problem is not None:
        parts.append(note("The middle could not be scored for every case. ", middle.problem))
    return section("More than the middle?", "middle", *parts)


def _fold_table(run: Run) -> Markup:
    """Mean of each fold, then mean and spread of these means."""
    rows = []
    scored = [(fold.index, fold.scores) for fold in run.folds if fold.scores is not None]
    for label in scored[0][1].labels:
        means: dict[str, list[float]] = {name: [] for name in _FOLD_METRICS}
        for index, scores in scored:
            row = [row_head(f"fold {index}"), text_cell(label), cell(len(scores.of_label(label)))]
            for name in _FOLD_METRICS:
                mean = scores.summary[label][name]["mean"]
                means[name] += [] if mean is None else [mean]
                row.append(cell(mean, digits(metric_named(name))))
            rows.append(row)
        average = [row_head("mean ± SD of folds"), text_cell(label), tag("td")]
        for name, values in means.items():
            places = digits(metric_named(name))
            sd = stdev(values) if len(values) > 1 else None
            written = f"{number(fmean(values), places)} ± {number(sd, places)}"
            average.append(tag("td", written if values else MISSING, class_="n"))
        rows.append(average)
    head = ("Fold", "Label", "Cases", *(heading(metric_named(name)) for name in _FOLD_METRICS))
    return table(head, rows, caption="Mean of each fold", n_text_columns=2)


def _case_table(run: Run, middle: MiddleBaseline) -> Markup:
    rows = [
        _case_row(fold.index if len(run.folds) > 1 else None, score, middle)
        for fold in run.folds
        for score in fold.cases
    ]
    head = ["Case", "Label", *(["Fold"] if len(run.folds) > 1 else [])]
    for metric in METRICS:
        head += [heading(metric)] + (["Dice, the middle"] if metric.name == "dice" else [])
    return table(
        [*head, "Note"],
        rows,
        caption="Every validation case (a click on a heading sorts)",
        n_text_columns=2,
        sortable=True,
    )


def _case_row(fold: int | None, score: LabelScore, middle: MiddleBaseline) -> list[Markup]:
    row = [row_head(score.case), text_cell(score.label)]
    if fold is not None:
        row.append(cell(fold))
    for metric in METRICS:
        row.append(cell(score.metrics[metric.name], digits(metric)))
        if metric.name == "dice":
            row.append(cell(middle.dice.get((score.case, score.label)), 3))
    return [*row, text_cell(score.note or "")]


def _definitions(scores: Scores) -> Markup:
    written = [(heading(metric_named(name)), text) for name, text in DEFINITIONS.items()]
    return details(
        "How each metric is computed",
        definitions(written),
        tag("h3", "Settings"),
        definitions(scores.settings.items()),
    )
