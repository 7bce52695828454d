"""`leanseg robustness`: what controlled changes of scans do to a model's Dice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.cli import options
from leanseg.cli.output import print_notes, print_table, progress

if TYPE_CHECKING:
    from leanseg.evaluation.robustness import Robustness

_FILES = ("robustness.json", "robustness.csv", "robustness.png")


def command(
    model_file: options.Model,
    data: options.Data,
    factors: Annotated[
        str | None,
        typer.Option(
            help="What to change, all if not given: thickness, dropped, border, end, offset, "
            "scale, noise, rotation, orientation; separated by commas."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Values of the model's labels, where names differ: liver=1,tumour=2+3."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Folder for {', '.join(_FILES)}."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put a summary into the model file, for `info`.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    ignore: Annotated[
        int | None, typer.Option(help="Value of voxels in the label maps that do not count.")
    ] = None,
    threads: options.Threads = None,
    geometry: options.Geometry = "auto",
) -> None:
    """Predict every labelled case again under controlled changes, and compare its Dice.

    Scans get thicker slices, noise, another field of view and so on, and their labels likewise.
    Each changed scan is scored on its own grid and compared with the unchanged scan.
    """
    from leanseg.datasets import open_dataset
    from leanseg.evaluation import parse_labels
    from leanseg.files import require_outputs
    from leanseg.inference import load_model
    from leanseg.inference.robustness import robustness
    from leanseg.modelfile import write_model

    wanted = None if labels is None else parse_labels(labels)
    names = None if factors is None else [name.strip() for name in factors.split(",")]
    model = load_model(model_file, threads=threads, in_background=True)
    dataset = open_dataset(data).read_as(geometry)
    files = [] if output is None else [output / name for name in _FILES]
    require_outputs(files, [model_file, *dataset.files()], new_folders=True)
    require_outputs([model_file] if write else [])
    with progress() as display:
        found = robustness(
            model,
            dataset,
            wanted,
            factors=names,
            seed=seed,
            ignored_values=[] if ignore is None else [ignore],
            on_begin=lambda total: display.count("predicting", total),
        )
    print_notes(found.notes)
    _print(found)
    if output is not None:
        from leanseg.reports.robustness_figure import write_figure

        output.mkdir(parents=True, exist_ok=True)
        found.to_json(files[0])
        found.to_csv(files[1])
        write_figure(files[2], found)
        typer.echo(f"wrote {files[0]}, {_FILES[1]} and {_FILES[2]}")
    if write:
        provenance = model.file.provenance.model_copy(update={"robustness": found.record})
        write_model(model_file, replace(model.file, provenance=provenance))
        typer.echo(f"put the summary into {model_file}; `leanseg info` shows it")


def _print(found: Robustness) -> None:
    n_cases = len(found.cases)
    cases = "1 case" if n_cases == 1 else f"{n_cases} cases"
    slopes = []
    for name, by_label in found.summary.items():
        rows = [
            {
                **_label(found, label),
                "level": level,
                "cases": str(each["n"]),
                "mean ± SD": _number(each["mean"]) + _spread(each["sd"]),
                "worst tenth": _number(each["worst_tenth"]),
                "difference ± SD": _number(each["difference"], sign="+")
                + _spread(each["difference_sd"]),
            }
            for label, of_label in by_label.items()
            for level, each in of_label["levels"].items()
        ]
        print_table(rows, left=("label", "level"), title=f"{name}, Dice of {cases}")
        slopes += [
            {
                "factor": name if side == "all" else f"{name}, {side} no change",
                **_label(found, label),
                "slope": f"{each['slope']:+.3g}",
                "95 % interval": _interval(each["interval"]),
                "per": found.factors[name].unit,
            }
            for label, of_label in by_label.items()
            for side, each in of_label["slopes"].items()
        ]
    if slopes:
        title = "Dice per unit, each case with its own intercept"
        print_table(slopes, left=("factor", "label", "per"), title=title)
    for name, n in found.labels_changed.items():
        what = f"{n} voxels have another label" if n else "every voxel has the same label"
        typer.echo(f"{name}: {what}")


def _label(found: Robustness, label: str) -> dict[str, str]:
    return {"label": label} if len(found.labels) > 1 else {}


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _spread(sd: float | None) -> str:
    return "" if sd is None else f" ± {sd:.3f}"


def _interval(ends: Any) -> str:
    return "-" if ends is None else f"{ends[0]:+.3g} to {ends[1]:+.3g}"
