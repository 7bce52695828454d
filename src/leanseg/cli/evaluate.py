"""`leanseg evaluate`: score predicted label maps against references."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.errors import LeansegError

if TYPE_CHECKING:
    from rich.console import Console

    from leanseg.evaluation import Metric, Scores


def command(
    predictions: Annotated[Path, typer.Argument(help="A predicted label map, or a folder.")],
    references: Annotated[
        Path, typer.Argument(help="A reference label map, a folder of them, or a dataset.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(help="Labels to score: liver=1,tumour=2+3 (+ merges values)."),
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="Take the labels from this dataset.json instead.")
    ] = None,
    prediction_labels: Annotated[
        str | None, typer.Option(help="Values in the predictions, where they differ: liver=5.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for scores.json and scores.csv.")
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of surface Dice.")] = 1.0,
    empty: Annotated[
        str, typer.Option(help="Score of a label that both maps lack: undefined or perfect.")
    ] = "undefined",
    one_empty_distance: Annotated[
        str, typer.Option(help="Distances where one map lacks it: undefined or diagonal.")
    ] = "undefined",
    scan_border: Annotated[
        str,
        typer.Option(help="Faces cut by the scan's border: surface (as MONAI) or open (as CHAOS)."),
    ] = "surface",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score missing predictions as empty.")
    ] = False,
    per_case: Annotated[bool, typer.Option("--per-case", help="Print every case.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 works in this one.")] = 0,
) -> None:
    """Score predicted label maps against references, matched by file name."""
    from rich.console import Console

    from leanseg.evaluation import (
        EvaluationSettings,
        choose_labels,
        evaluate_cases,
        match_cases,
        parse_labels,
        read_labels_file,
    )
    from leanseg.progress import Display

    if labels is not None and labels_file is not None:
        msg = f"labels are given as {labels!r} and in {labels_file}; give one of the two"
        raise LeansegError(msg)
    if output is not None and output.exists() and not output.is_dir():
        msg = f"{output} is a file; give a folder for scores.json and scores.csv"
        raise LeansegError(msg)
    wanted = parse_labels(labels) if labels is not None else None
    if labels_file is not None:
        wanted = read_labels_file(labels_file)
    settings = EvaluationSettings(tolerance_mm, empty, one_empty_distance, scan_border)  # type: ignore[arg-type]
    matched = match_cases(predictions, references, allow_missing=allow_missing)
    for name in matched.unmatched_predictions:
        typer.echo(f"leanseg: prediction {name} has no reference and is not scored", err=True)
    given = parse_labels(prediction_labels) if prediction_labels else None
    chosen, of_predictions = choose_labels(matched, wanted, given)
    if chosen is not wanted and of_predictions is not given:
        names = ", ".join(f"{name}={value}" for name, value in (of_predictions or {}).items())
        typer.echo(f"leanseg: labels in the predictions by their record: {names}", err=True)
    done = count(1)
    with Display(Console(stderr=True)) as display:
        display.begin("scoring", len(matched.pairs))
        scores = evaluate_cases(
            matched.pairs,
            chosen,
            prediction_labels=of_predictions,
            settings=settings,
            n_workers=workers,
            on_case=lambda name: display.advance(
                "scoring", next(done), len(matched.pairs), f"scored {name}"
            ),
        )
    console = Console()
    if per_case:
        _print_cases(console, scores)
    _print_summary(console, scores)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        scores.to_json(output / "scores.json")
        scores.to_csv(output / "scores.csv")
        console.print(f"wrote {output / 'scores.json'} and scores.csv", soft_wrap=True)


def _print_summary(console: Console, scores: Scores) -> None:
    from rich.markup import escape
    from rich.table import Table

    from leanseg.evaluation import METRICS

    for label, by_metric in scores.summary.items():
        n_cases = len(scores.of_label(label))
        if not n_cases:
            console.print(f"{label}: no case annotates it", markup=False, highlight=False)
            continue
        cases = "1 case" if n_cases == 1 else f"{n_cases} cases"
        table = Table(title=escape(f"{label}, {cases}"), title_justify="left")
        table.add_column("Metric")
        for heading in ("Mean ± SD", "Median", "Worst"):
            table.add_column(heading, justify="right")
        table.add_column("Worst case")
        table.add_column("Undefined", justify="right")
        for metric in METRICS:
            row = by_metric[metric.name]
            spread = f" ± {_number(row['sd'])}" if row["sd"] is not None else ""
            table.add_row(
                _heading(metric),
                _number(row["mean"]) + spread,
                _number(row["median"]),
                _number(row["worst"]) if metric.better else "",
                escape(row["worst_case"] or ""),
                str(row["n_undefined"]) if row["n_undefined"] else "",
            )
        console.print(table)
    settings = scores.settings
    console.print(
        f"Surface Dice at {settings['surface_tolerance_mm']:g} mm; a label that both maps lack is "
        f"{settings['empty']}; scan border: {settings['scan_border']}. scores.json holds every "
        "definition.",
        style="dim",
        highlight=False,
    )


def _print_cases(console: Console, scores: Scores) -> None:
    from rich.markup import escape
    from rich.table import Table

    from leanseg.evaluation import metric as metric_named

    shown = ("dice", "hausdorff_mm", "hausdorff95_mm", "assd_mm", "surface_dice")
    table = Table(title="Cases", title_justify="left")
    table.add_column("Case", overflow="fold", ratio=1)
    table.add_column("Label")
    for metric in map(metric_named, shown):
        table.add_column(_heading(metric), justify="right")
    table.add_column("Note")
    for score in scores.cases:
        numbers = (_number(score.metrics[name]) for name in shown)
        table.add_row(escape(score.case), escape(score.label), *numbers, escape(score.note or ""))
    console.print(table)


def _heading(metric: Metric) -> str:
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
