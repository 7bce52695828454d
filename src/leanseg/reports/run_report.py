"""The report of a run: scores, baseline, pictures, curves, data and speed on one page.

Of several runs, the report of their comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import yaml

from leanseg.errors import LeansegError
from leanseg.evaluation.calibration import ECE_DEFINITION
from leanseg.evaluation.comparison import compare
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import METRICS, Metric
from leanseg.files import require_outputs, write_text
from leanseg.modelfile import SUFFIX, read_model
from leanseg.reports.baseline import Baseline, baseline_rows, run_baseline
from leanseg.reports.case_maps import CaseMaps, Masks, case_reader
from leanseg.reports.comparison_report import comparison_report, shown_places
from leanseg.reports.overlay import Scene, choose_slices, slice_png
from leanseg.reports.page import digits, number, png_address, render, svg_address
from leanseg.reports.panels import legend_entries
from leanseg.reports.plots import (
    Group,
    bland_altman,
    box_plot,
    known_curves,
    learning_curve,
    series_colour,
)
from leanseg.reports.reliability_figure import reliability_figure, reliability_of
from leanseg.reports.run_folder import Fold, RunFolder, read_run_folder, short_names
from leanseg.reports.viewer import viewer_content, viewer_scripts
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


def report(folder: str | Path | Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the report of a run; a run in progress is reported as far as it has come.

    Args:
        folder: The run's folder; or those of several runs, which are compared by their Dice.
        output: The HTML file; None writes `report.html` into the run's folder.

    Returns:
        The file's path.

    Raises:
        DatasetError: If a folder is not a run.
        FileFormatError: If one of the run's files is damaged.
        LeansegError: If `output` is a folder or cannot be written; or, of several runs, is not
            given, or there is nothing to compare.
        MissingDependencyError: Of several runs: if statsmodels is not installed.

    Example:
        >>> leanseg.report("runs/tiny").name
        'report.html'
    """
    if not isinstance(folder, str | Path):
        if len(folder) > 1:
            return _report_runs([Path(each) for each in folder], output)
        (folder,) = folder
    run = read_run_folder(Path(folder))
    path = run.folder / "report.html" if output is None else Path(output).expanduser()
    require_outputs([path], run.files())
    write_text(path, report_page(run), in_new_folder=False)
    return path


def _report_runs(folders: Sequence[Path], output: str | Path | None) -> Path:
    if output is None:
        raise LeansegError("several runs have no folder in common for their report; name --output")
    names = short_names(folders)
    runs = {name: read_run_folder(path) for name, path in names.items()}
    path = Path(output).expanduser()
    require_outputs([path], [file for run in runs.values() for file in run.files()])
    scores = {name: run.scores for name, run in runs.items()}
    found = compare(scores)
    masks = {name: Masks.of_runs([run]) for name, run in runs.items()}
    return comparison_report(
        scores,
        found,
        path,
        title=" · ".join(runs),
        read_case=case_reader(found.labels, masks, runs.values()),
        runs={name: [run] for name, run in runs.items()},
        notes=[f"{name}: {text}" for name, run in runs.items() for text in run.missing],
    )


def report_page(run: RunFolder) -> str:
    """The report as HTML."""
    baseline = run_baseline(run)
    summaries = [fold.summary for fold in run.folds if fold.summary]
    timed = [case for summary in summaries for case in summary["prediction"]["cases"]]
    pictures = [_picture(run, shown) for shown in shown_cases(run)]
    return render(
        "run.html.j2",
        viewer_scripts() if any(picture["viewer"] for picture in pictures) else (),
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
        pictures=pictures,
        legend=legend_entries(list(run.labels)),
        volumes=list(_volumes(run)),
        calibrations=list(_calibrations(run)),
        reliability_of=reliability_of,
        ece_definition=ECE_DEFINITION,
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
    """The best, the median and the worst case by Dice, as far as there are so many."""
    ranked = []
    for fold in run.folds:
        dice: dict[str, list[float]] = {}
        for score in fold.scores.cases:
            if (value := score.metrics["dice"]) is not None:
                dice.setdefault(score.case, []).append(value)
        ranked += [(fmean(values), case, fold) for case, values in dice.items()]
    ranked.sort(key=lambda entry: (-entry[0], entry[1]))
    return [
        ShownCase(title, ranked[place][1], ranked[place][2], ranked[place][0])
        for title, place in shown_places(len(ranked)).items()
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
    """Panels of a case and what the viewer needs, or a sentence saying why there are none."""
    try:
        image, reference = run.volumes(shown.name)
        prediction = read_volume(shown.fold.prediction_path(shown.name))
        maps = CaseMaps.of(
            shown.name,
            image,
            reference,
            {"prediction": prediction},
            window=run.window_hu,
            ignored=run.ignored,
        )
        scene = Scene.from_volumes(image, reference, prediction, ignored=run.ignored)
    except (LeansegError, OSError) as error:
        return {"of": shown, "panels": [], "viewer": None, "problem": f"{error}."}
    panels = [
        (
            png_address(slice_png(scene, view, labels=run.labels, window=run.window_hu)),
            scene.caption(view),
        )
        for view in choose_slices(scene)
    ]
    viewer = viewer_content(maps, list(run.labels))
    return {"of": shown, "panels": panels, "viewer": viewer, "problem": None}


def _volumes(run: RunFolder) -> Iterator[tuple[str, str]]:
    for label in run.labels:
        figure = bland_altman({"": run.scores.of_label(label)}, label)
        if figure is not None:
            yield svg_address(figure), f"Bland-Altman plot of the volume of {label}"


def _calibrations(run: RunFolder) -> Iterator[dict[str, Any]]:
    """Of each model file in a fold's folder that `leanseg calibrate` wrote."""
    for fold in run.folds:
        for path in sorted(fold.folder.glob(f"*{SUFFIX}")):
            model = read_model(path)
            review = model.provenance.review
            if review is not None and review.reliability:
                yield {
                    "file": path.relative_to(run.folder).as_posix(),
                    "temperature": model.plan.final.temperature,
                    "review": review,
                    "figures": [
                        (svg_address(reliability_figure({label: both})), f"Reliability of {label}")
                        for label, both in review.reliability.items()
                    ],
                }


def _curves(run: RunFolder) -> list[list[tuple[str, str]]]:
    """A row of panels against epochs and one against time; none before an epoch has ended."""
    folds = [fold for fold in run.folds if fold.epochs]
    return [
        [
            (svg_address(learning_curve(folds, curve, against)), f"{curve.title} against {name}")
            for curve in known_curves(folds)
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
    planned = {"Costs, planned and measured": "\n".join(cards[0].lines(cards[1]))} if cards else {}
    summaries = {
        f"Training summary, fold {fold.index}": _yaml(fold.summary)
        for fold in run.folds
        if fold.summary
    }
    recipe = {"Environment": _yaml(run.environment), "Resolved recipe": run.recipe_text}
    return planned | recipe | summaries


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
