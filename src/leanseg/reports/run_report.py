"""The report of a run: scores, baseline, pictures, curves, data and speed on one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import yaml

from leanseg.errors import LeansegError
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import METRICS, Metric
from leanseg.files import require_outputs, write_text
from leanseg.reports.baseline import Baseline, baseline_rows, run_baseline
from leanseg.reports.overlay import Scene, choose_slices, label_colours, slice_png
from leanseg.reports.page import digits, number, png_address, render, svg_address
from leanseg.reports.plots import CURVES, Group, box_plot, learning_curve, series_colour
from leanseg.reports.run_folder import Fold, RunFolder, read_run_folder
from leanseg.training.planning import cards_of
from leanseg.volumes import read_volume

_FOLD_METRICS = [m for m in METRICS if m.name in ("dice", "hausdorff95_mm", "surface_dice")]


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
        return [score for score in self.fold.scores.cases if score.case == self.name]


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
        LeansegError: If `output` is a folder or cannot be written.

    Example:
        >>> leanseg.report("runs/tiny").name
        'report.html'
    """
    run = read_run_folder(Path(folder))
    path = run.folder / "report.html" if output is None else Path(output).expanduser()
    require_outputs([path], run.files())
    write_text(path, report_page(run), in_new_folder=False)
    return path


def report_page(run: RunFolder) -> str:
    """The report as HTML."""
    baseline = run_baseline(run)
    summaries = [fold.summary for fold in run.folds if fold.summary]
    timed = [case for summary in summaries for case in summary["prediction"]["cases"]]
    return render(
        "run.html.j2",
        kind="leanseg report",
        title=run.folder.name,
        run=run,
        summary=summaries[0] if summaries else {},
        train_seconds=[summary["train_seconds"] for summary in summaries],
        baseline=baseline,
        baseline_rows=list(baseline_rows(run, baseline)),
        metrics=METRICS,
        fold_metrics=_FOLD_METRICS,
        box_plots=list(_box_plots(run, baseline)),
        spread=_spread,
        pictures=[_picture(run, shown) for shown in shown_cases(run)],
        legend=_legend(run),
        curves=_curves(run),
        colour=series_colour,
        data_facts=_data_facts(run),
        splits=[asdict(split) for split in run.splits],
        slices=_slices(run),
        timed=timed,
        median_seconds=median(case["seconds"] for case in timed) if timed else None,
        texts=_texts(run),
    )


def shown_cases(run: RunFolder) -> list[ShownCase]:
    """The best, the median and the worst case by Dice, as far as there are so many.

    With an even number of cases the median is the better of the two in the middle.
    """
    ranked = []
    for fold in run.folds:
        dice: dict[str, list[float]] = {}
        for score in fold.scores.cases:
            if (value := score.metrics["dice"]) is not None:
                dice.setdefault(score.case, []).append(value)
        ranked += [(fmean(values), case, fold) for case, values in dice.items()]
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


def _box_plots(run: RunFolder, baseline: Baseline) -> Iterator[tuple[str, str]]:
    dice, distance = [], []
    for label in run.labels:
        scored = run.scores.of_label(label)
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
            description = f"Box plot of {title} with a point for every test case"
            yield svg_address(figure), description


def _spread(folds: Sequence[Fold], label: str, metric: Metric) -> str:
    """Mean and standard deviation of the folds' means."""
    means = [fold.scores.summary[label][metric.name]["mean"] for fold in folds]
    known = [mean for mean in means if mean is not None]
    mean = fmean(known) if known else None
    sd = stdev(known) if len(known) > 1 else None
    return f"{number(mean, digits(metric))} ± {number(sd, digits(metric))}"


def _picture(run: RunFolder, shown: ShownCase) -> dict[str, Any]:
    """Panels of a case, or a sentence saying why there are none."""
    try:
        return {"of": shown, "panels": list(_panels(run, shown)), "problem": None}
    except (LeansegError, OSError) as error:
        return {"of": shown, "panels": [], "problem": f"{error}."}


def _panels(run: RunFolder, shown: ShownCase) -> Iterator[tuple[str, str]]:
    prediction = read_volume(shown.fold.prediction_path(shown.name))
    scene = Scene.from_volumes(*run.volumes(shown.name), prediction, ignored=run.ignored)
    for view in choose_slices(scene):
        png = slice_png(scene, view, labels=run.labels, window=run.window_hu)
        yield png_address(png), scene.caption(view)


def _legend(run: RunFolder) -> list[tuple[str, str, str]]:
    colours = label_colours(run.labels)
    if len(colours) == 1:
        ((_, reference, prediction),) = colours
        return [("reference", reference, "solid"), ("prediction", prediction, "dashed")]
    lines = [("reference", "#ffffff", "solid"), ("prediction", "#ffffff", "dashed")]
    return lines + [(name, c[1], "solid") for name, c in zip(run.labels, colours, strict=True)]


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


def _data_facts(run: RunFolder) -> dict[str, Any]:
    data, ignored = run.data, run.data.ignored_values
    labels = (
        f"{'+'.join(map(str, sorted(values)))} {name} (in the files: "
        f"{', '.join(map(str, data.label_values[name]))})"
        for name, values in run.plan.final.label_values.items()
    )
    return {
        "Name": data.name,
        "Folder": data.root,
        "Layout": data.layout,
        "Cases": len(data.cases),
        "Channels": ", ".join(data.channels),
        "Labels": "; ".join(labels),
        **({"Ignored (in the files)": ", ".join(map(str, ignored))} if ignored else {}),
        "Fingerprint (SHA-256)": data.fingerprint,
    }


def _slices(run: RunFolder) -> dict[int, tuple[int, int]]:
    """By fold the fewest and the most slices of its test cases, where it is done."""
    found = {}
    for fold in run.folds:
        timed = fold.summary["prediction"]["cases"] if fold.summary else ()
        if timed:
            sizes = [case["slices"] for case in timed]
            found[fold.index] = (min(sizes), max(sizes))
    return found


def _texts(run: RunFolder) -> dict[str, str]:
    """What was planned, environment, recipe and training summaries, as text."""
    cards = cards_of(run.folder)
    planned = {"Costs, planned and true": "\n".join(cards[0].lines(cards[1]))} if cards else {}
    summaries = {
        f"Training summary, fold {fold.index}": _yaml(fold.summary)
        for fold in run.folds
        if fold.summary
    }
    recipe = {"Environment": _yaml(run.environment), "Resolved recipe": run.recipe_text}
    return planned | recipe | summaries


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
