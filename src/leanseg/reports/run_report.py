"""The report of a run: scores, baseline, pictures, curves, data and speed on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

from leanseg.errors import LeansegError
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import METRICS
from leanseg.reports.baseline import Baseline, run_baseline
from leanseg.reports.overlay import Scene, choose_slices, label_colours, slice_png
from leanseg.reports.page import MISSING, number, png_address, render, svg_address, write_page
from leanseg.reports.plots import CURVES, Group, box_plot, learning_curve, series_colour
from leanseg.reports.run_folder import Fold, RunFolder, read_run_folder
from leanseg.volumes import read_volume

_DIGITS = {"": 3, "mm": 2, "ml": 1, "%": 1}


class _Column(NamedTuple):
    """A metric as a table shows it."""

    name: str
    heading: str
    digits: int
    definition: str


_COLUMNS = tuple(
    _Column(
        metric.name,
        f"{metric.title} [{metric.unit}]" if metric.unit else metric.title,
        # Specificity is close to 1 and needs more.
        5 if metric.name == "specificity" else _DIGITS[metric.unit],
        metric.definition,
    )
    for metric in METRICS
)
_FOLD_COLUMNS = [c for c in _COLUMNS if c.name in ("dice", "hausdorff95_mm", "surface_dice")]


@dataclass(frozen=True)
class ShownCase:
    """A case worth a picture.

    Attributes:
        title: "Best", "Median" or "Worst".
        name: The case's name.
        fold: The fold that predicted it.
        dice: Mean over its labels.
    """

    title: str
    name: str
    fold: Fold
    dice: float

    @property
    def scores(self) -> list[LabelScore]:
        """Its scores, one a label."""
        return [score for score in self.fold.cases if score.case == self.name]


def report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run; a run in progress is reported as far as it has come.

    Args:
        folder: The run's folder.
        output: The HTML file; None writes `report.html` into the run's folder.

    Returns:
        The file's path.

    Raises:
        DatasetError: If the folder is not a run.
        FileFormatError: If one of the run's files is damaged.
        RecipeError: If `output` is a folder.
        LeansegError: If the file cannot be written.

    Example:
        >>> leanseg.report("runs/tiny").name
        'report.html'
    """
    run = read_run_folder(Path(folder))
    path = run.folder / "report.html" if output is None else Path(output).expanduser()
    return write_page(path, report_page(run))


def report_page(run: RunFolder) -> str:
    """The report as HTML."""
    baseline = run_baseline(run)
    summaries = [fold.summary for fold in run.folds if fold.summary]
    timed = list(_timed_cases(run))
    return render(
        "run.html.j2",
        kind="leanseg report",
        title=run.name,
        run=run,
        summary=summaries[0] if summaries else {},
        train_seconds=[s["train_seconds"] for s in summaries if "train_seconds" in s],
        baseline=baseline,
        baseline_rows=list(_baseline_rows(run, baseline)),
        metrics=_COLUMNS,
        fold_metrics=_FOLD_COLUMNS,
        box_plots=list(_box_plots(run, baseline)),
        fold_rows=list(_fold_rows(run)),
        pictures=[_picture(run, shown, baseline) for shown in shown_cases(run)],
        legend=_legend(run.labels),
        curves=_curves(run),
        colour=series_colour,
        data_facts=_data_facts(run.data),
        splits=[asdict(split) for split in run.splits],
        timed=timed,
        median_seconds=median(row["seconds"] for row in timed) if timed else None,
        flat=_flat,
    )


def shown_cases(run: RunFolder) -> list[ShownCase]:
    """The best, the median and the worst case by Dice, as far as there are so many.

    With an even number of cases the median is the better of the two in the middle.
    """
    ranked = []
    for fold in run.folds:
        for case in dict.fromkeys(score.case for score in fold.cases):
            values = [s.metrics["dice"] for s in fold.cases if s.case == case]
            defined = [value for value in values if value is not None]
            if defined:
                ranked.append((fmean(defined), case, fold))
    ranked.sort(key=lambda entry: (-entry[0], entry[1]))
    last = len(ranked) - 1
    places = {"Best": 0, "Median": last // 2, "Worst": last}
    if len(ranked) < 3:
        places = {"Best": 0, "Worst": 1} if last else {"The only case": 0}
    return [
        ShownCase(title, ranked[place][1], ranked[place][2], ranked[place][0])
        for title, place in places.items()
        if ranked
    ]


def _baseline_rows(run: RunFolder, baseline: Baseline) -> Iterator[dict[str, Any]]:
    """For each label, network and baseline over the cases for which both have a Dice."""
    for label in run.labels:
        both = [
            (own, baseline.dice[score.case, label])
            for score in run.cases
            if score.label == label
            and (own := score.metrics["dice"]) is not None
            and (score.case, label) in baseline.dice
        ]
        if both:
            own_mean, baseline_mean = (fmean(values) for values in zip(*both, strict=True))
            yield {
                "label": label,
                "network": own_mean,
                "baseline": baseline_mean,
                "n_better": sum(own > base for own, base in both),
                "n": len(both),
            }


def _box_plots(run: RunFolder, baseline: Baseline) -> Iterator[tuple[str, str]]:
    dice, distance = [], []
    for label in run.labels:
        scored = [score for score in run.cases if score.label == label]
        dice.append(Group(label, [score.metrics["dice"] for score in scored]))
        constant = [baseline.dice.get((score.case, label)) for score in scored]
        if any(value is not None for value in constant):
            dice.append(Group(f"{label}:\nbaseline", constant, muted=True))
        distance.append(Group(label, [score.metrics["hausdorff95_mm"] for score in scored]))
    for groups, title, limit in (
        (dice, "Dice (grey: the same mask for every scan)", 1.0),
        (distance, "Hausdorff 95 % [mm]", None),
    ):
        figure = box_plot(groups, title, upper_limit=limit)
        if figure is not None:
            description = f"Box plot of {title} with a point for every validation case"
            yield svg_address(figure), description


def _fold_rows(run: RunFolder) -> Iterator[dict[str, Any]]:
    """For each label, the mean of each fold, then mean and spread of these means."""
    folds = [(fold.index, fold.scores) for fold in run.folds if fold.scores is not None]
    for label in run.labels if len(folds) > 1 else ():
        means = {
            index: [scores.summary[label][column.name]["mean"] for column in _FOLD_COLUMNS]
            for index, scores in folds
        }
        spread = [
            _mean_and_sd(values, column.digits)
            for column, values in zip(_FOLD_COLUMNS, zip(*means.values(), strict=True), strict=True)
        ]
        n_cases = {index: len(scores.of_label(label)) for index, scores in folds}
        yield {"label": label, "means": means, "n_cases": n_cases, "spread": spread}


def _mean_and_sd(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    mean = fmean(known) if known else None
    sd = stdev(known) if len(known) > 1 else None
    return f"{number(mean, digits)} ± {number(sd, digits)}"


def _picture(run: RunFolder, shown: ShownCase, baseline: Baseline) -> dict[str, Any]:
    """Panels of a case, or a sentence saying why there are none."""
    facts = [f"Dice {number(shown.dice, 3)}"]
    if len(shown.scores) == 1:
        (score,) = shown.scores
        distance = score.metrics["hausdorff95_mm"]
        if distance is not None:
            facts.append(f"Hausdorff 95 % {number(distance, 1)} mm")
        if (shown.name, score.label) in baseline.dice:
            facts.append(f"baseline {number(baseline.dice[shown.name, score.label], 3)}")
    else:
        facts[0] += " (mean of labels)"
    picture = {"title": shown.title, "case": shown.name, "facts": " · ".join(facts)}
    try:
        return picture | {"panels": list(_panels(run, shown)), "problem": None}
    except (LeansegError, OSError) as error:
        return picture | {"panels": [], "problem": f"{error}."}


def _panels(run: RunFolder, shown: ShownCase) -> Iterator[tuple[str, str]]:
    scene = Scene.from_volumes(
        run.image(shown.name),
        run.reference(shown.name),
        read_volume(shown.fold.prediction_path(shown.name)),
    )
    for view in choose_slices(scene):
        png = slice_png(scene, view, labels=run.data["labels"], window=run.window_hu)
        yield png_address(png), scene.caption(view)


def _legend(labels: tuple[str, ...]) -> list[tuple[str, str, str]]:
    colours = label_colours({label: n for n, label in enumerate(labels)})
    if len(labels) == 1:
        _, reference, prediction = colours[0]
        return [("reference", reference, "solid"), ("prediction", prediction, "dashed")]
    lines = [("reference", "#ffffff", "solid"), ("prediction", "#ffffff", "dashed")]
    return lines + [(name, c[1], "solid") for name, c in zip(labels, colours, strict=True)]


def _curves(run: RunFolder) -> list[list[tuple[str, str]]]:
    """A row of panels against epochs and one against time; none before an epoch has ended."""
    folds = [fold for fold in run.folds if fold.epochs]
    return [
        [
            (svg_address(learning_curve(folds, curve, against)), f"{curve.title} against {name}")
            for curve in CURVES
        ]
        for against, name in (("epoch", "epochs"), ("elapsed_s", "time"))
        if folds
    ]


def _data_facts(data: Mapping[str, Any]) -> dict[str, Any]:
    if not data:
        return {}
    merged = data["label_values"]
    labels = [
        f"{value} {name} (in the files: {', '.join(map(str, merged.get(name, ())))})"
        for name, value in data["labels"].items()
    ]
    return {
        "Name": data["name"],
        "Folder": data["root"],
        "Layout": data["layout"],
        "Cases": len(data["cases"]),
        "Channels": ", ".join(data["channels"]),
        "Labels": "; ".join(labels),
        "Fingerprint (SHA-256)": data["fingerprint"],
    }


def _timed_cases(run: RunFolder) -> Iterator[dict[str, Any]]:
    for fold in run.folds:
        for entry in fold.summary.get("prediction", {}).get("cases", ()):
            if entry.get("seconds") is not None:
                yield {
                    "name": entry["case"],
                    "seconds": entry["seconds"],
                    "slices": entry["slices"],
                }


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Nested data as names with dots, one value each."""
    if isinstance(value, Mapping) and value:
        parts = (_flat(v, f"{name}.{key}" if name else str(key)) for key, v in value.items())
        return {key: inner for part in parts for key, inner in part.items()}
    if isinstance(value, (list, tuple)):
        return {name: ", ".join(str(inner) for inner in value) or MISSING}
    return {name: MISSING if value is None else str(value)}
