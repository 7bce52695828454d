"""`leanseg evaluate`: score predicted label maps against references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.cli import options
from leanseg.cli.output import console, listed_labels, print_notes, print_table, progress

if TYPE_CHECKING:
    from leanseg.evaluation import Metric, Scores
    from leanseg.evaluation.overlap import Values

_SHOWN_PER_CASE = (
    "dice",
    "dice_labelled_slices",
    "hausdorff_mm",
    "hausdorff95_mm",
    "assd_mm",
    "surface_dice",
)


def command(
    context: typer.Context,
    predictions: Annotated[
        Path,
        typer.Argument(
            help="A predicted label map, or a folder; with --cascade a model.",
            parser=options.model_path,
            metavar="PREDICTIONS",
        ),
    ],
    references: Annotated[
        Path, typer.Argument(help="A reference label map, a folder of them, or a dataset.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(help="Labels to score: liver=1,tumour=2+3 (+ merges values)."),
    ] = None,
    prediction_labels: Annotated[
        str | None,
        typer.Option(
            help="Values in the predictions, where they differ and the files do not name them: "
            "liver=5."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for scores.json and scores.csv.")
    ] = None,
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of surface Dice.")] = 1.0,
    empty: Annotated[
        str, typer.Option(help="Score of a label that both maps lack: undefined or perfect.")
    ] = "undefined",
    scan_border: Annotated[
        str,
        typer.Option(help="Faces cut by the scan's border: surface (as MONAI) or open (as CHAOS)."),
    ] = "surface",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score missing predictions as empty.")
    ] = False,
    per_case: Annotated[bool, typer.Option("--per-case", help="Print every case.")] = False,
    ignore: Annotated[
        int | None,
        typer.Option(help="Value of unannotated voxels in the references."),
    ] = None,
    lesions: Annotated[
        list[str] | None,
        typer.Option(
            help="Labels whose lesions are also scored one by one: tumour (repeat, or separate "
            "by commas)."
        ),
    ] = None,
    cascade: Annotated[
        bool,
        typer.Option(
            "--cascade", help="Measure what each of the two stages of a model costs on a dataset."
        ),
    ] = False,
    geometry: options.Geometry = "auto",
    workers: Annotated[int, typer.Option(help="Cases that are scored at the same time.")] = 0,
) -> None:
    """Score predicted label maps against references, matched by file name."""
    if cascade:
        from leanseg.cli.evaluate_cascade import evaluate_cascade

        evaluate_cascade(context, predictions, references, labels, output, ignore, geometry)
        return
    from leanseg.evaluation import (
        EvaluationSettings,
        choose_ignored,
        choose_labels,
        evaluate_cases,
        match_cases,
        parse_labels,
    )
    from leanseg.files import require_outputs

    wanted = None if labels is None else parse_labels(labels)
    given = None if prediction_labels is None else parse_labels(prediction_labels)
    settings = EvaluationSettings(tolerance_mm, empty, scan_border=scan_border)  # type: ignore[arg-type]
    matched = match_cases(predictions, references, allow_missing=allow_missing)
    of_lesions = [name.strip() for given in lesions or () for name in given.split(",")]
    files = ["scores.json", "scores.csv", *(["lesions.csv"] if of_lesions else [])]
    written = [] if output is None else [output / name for name in files]
    require_outputs(written, matched.files(), new_folders=True)
    for name in matched.unmatched_predictions:
        typer.echo(f"leanseg: prediction {name} has no reference and is not scored", err=True)
    chosen, of_predictions = choose_labels(matched, wanted, given)
    if chosen is not wanted and of_predictions is not given:
        named = listed_labels(of_predictions or {})
        typer.echo(f"leanseg: labels in the predictions: {named}", err=True)
        missing = [name for name in wanted or () if name not in (chosen or ())]
        if missing:
            typer.echo(
                f"leanseg: not in the predictions, so not scored: {', '.join(missing)}", err=True
            )
    with progress() as display:
        scores = evaluate_cases(
            [pair.read_as(geometry) for pair in matched.pairs],
            chosen,
            prediction_labels=of_predictions,
            settings=settings,
            ignored_values=choose_ignored(matched, chosen, [] if ignore is None else [ignore]),
            lesions=of_lesions,
            n_workers=workers,
            on_case=display.count("scoring", len(matched.pairs)),
        )
    print_notes(scores.notes)
    if per_case:
        _print_cases(scores)
    _print_summary(scores)
    for label, found in scores.lesion_summary.items():
        _print_lesions(label, found)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        scores.to_json(output / "scores.json")
        scores.to_csv(output / "scores.csv")
        if of_lesions:
            scores.lesions_to_csv(output / "lesions.csv")
        typer.echo(f"wrote {output / files[0]}{', '.join(['', *files[1:-1]])} and {files[-1]}")


def _print_summary(scores: Scores) -> None:
    from leanseg.evaluation import METRICS

    for label, by_metric in scores.summary.items():
        n_cases = len(scores.of_label(label))
        if not n_cases:
            typer.echo(f"{label}: no case annotates it")
            continue
        rows = [_row(metric, by_metric[metric.name]) for metric in METRICS]
        cases = "1 case" if n_cases == 1 else f"{n_cases} cases"
        print_table(rows, left=("metric", "worst case"), title=f"{label}, {cases}")
        ways = list(_four_ways(by_metric, scores.pooled[label]))
        print_table(ways, left=("over",), title=f"{label}, as paper 003 may have averaged")
    if len(scores.labels) > 1:
        dice = next(metric for metric in METRICS if metric.name == "dice")
        titles = {"dice_micro": "Dice of all voxels (micro)", "dice_macro": "mean Dice (macro)"}
        totals = [
            _row(dice, found) | {"metric": titles[name]} for name, found in scores.total.items()
        ]
        print_table(totals, left=("metric", "worst case"), title="all labels")
    settings = scores.settings
    ignored = ", ".join(map(str, settings.get("ignored_values", ())))
    console().print(
        f"Surface Dice at {settings['surface_tolerance_mm']:g} mm; a label that both maps lack is "
        f"{settings['empty']}; scan border: {settings['scan_border']}"
        + (f"; voxels of {ignored} in the references are ignored" if ignored else "")
        + ". scores.json holds every definition.",
        style="dim",
    )


def _print_lesions(label: str, found: dict[str, Any]) -> None:
    sizes = {f"{name} mm": of_size for name, of_size in found["by_diameter_mm"].items()}
    rows = [
        {
            "diameter": name,
            "lesions": str(of_size["n_lesions"]),
            "found": str(of_size["n_found"]),
            "sensitivity": _number(of_size["sensitivity"]),
            "mean Dice": _number(of_size["dice"]),
        }
        for name, of_size in {**sizes, "all": found}.items()
    ]
    print_table(rows, left=("diameter",), title=f"{label}, lesions of the references")
    typer.echo(
        f"{found['false_positives']} of {found['n_predicted']} predicted components overlap no "
        f"lesion: {_number(found['false_positives_per_scan'])} false positives a scan, "
        f"precision {_number(found['precision'])}"
    )


def _four_ways(by_metric: dict[str, Any], pooled: Values) -> Iterator[dict[str, str]]:
    from leanseg.evaluation.metrics import PUBLISHED, WHERE

    for where, among in reversed(WHERE.items()):
        per_case = {name: by_metric[f"{name}{where}"]["mean"] for name in PUBLISHED}
        together = {name: pooled[f"{name}_pooled{where}"] for name in PUBLISHED}
        for way, values in (("mean of cases", per_case), ("pooled voxels", together)):
            numbers = (_number(value, 4) for value in values.values())
            yield {
                "over": f"{way}, {among}",
                **dict(zip(("Dice", "SEN", "SPE"), numbers, strict=True)),
            }


def _row(metric: Metric, summary: dict[str, Any]) -> dict[str, str]:
    spread = "" if summary["sd"] is None else f" ± {_number(summary['sd'])}"
    return {
        "metric": _heading(metric),
        "mean ± SD": _number(summary["mean"]) + spread,
        "median": _number(summary["median"]),
        "worst": _number(summary["worst"]) if metric.better else "",
        "worst case": summary["worst_case"] or "",
        "undefined": str(summary["n_undefined"] or ""),
    }


def _print_cases(scores: Scores) -> None:
    from leanseg.evaluation import METRICS

    shown = [metric for metric in METRICS if metric.name in _SHOWN_PER_CASE]
    rows = [
        {
            "case": score.case,
            "label": score.label,
            **{_heading(metric): _number(score.metrics[metric.name]) for metric in shown},
            "note": score.note or "",
        }
        for score in scores.cases
    ]
    print_table(rows, left=("case", "label", "note"))


def _heading(metric: Metric) -> str:
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title


def _number(value: float | None, n_digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:.{n_digits}f}" if abs(value) < 100 else f"{value:.1f}"
