"""`leanseg activations`: how much of a network takes part in what it says of a scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.errors import DatasetError, LeansegError

if TYPE_CHECKING:
    from leanseg.reports.activation_study import ActivationStudy, Selection

_LOG_WIDTH = 200
FIGURE, RECORD = "activations.png", "activations.json"


def command(
    model: Annotated[Path, typer.Argument(help="A model file (.leanseg).")],
    scan: Annotated[Path, typer.Argument(help="A scan: a file, a DICOM folder or zip.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A further model for the same scan, shown below; may repeat."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Folder for {FIGURE} and {RECORD}."),
    ] = None,
    slices: Annotated[
        str,
        typer.Option(help="all, a number of evenly spaced slices (or tiles), or a range 40:80."),
    ] = "24",
    channel: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Which channel of a 4-D scan is the model's, from 0; may repeat."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="Which DICOM series: its number, description or UID.")
    ] = None,
    allow_imports: Annotated[
        bool,
        typer.Option("--allow-imports", help="Run network code that the model file names."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Histograms of a network's feature maps, and its dead channels (paper 000, figure 5).

    Looked at is what stands right behind every activation function while the network sees slices
    of the scan. A channel is dead if it never leaves the function's floor (ReLU 0, ELU -1).
    """
    from leanseg.cli.requirements import require_torch

    require_torch("leanseg activations")
    from leanseg.reports.activation_study import Selection

    selection = Selection.parse(slices)
    studies = [
        _study(path, scan, channel, series, selection, allow_imports)
        for path in (model, *(against or ()))
    ]
    if output is not None:
        _write(output, studies)
    if as_json:
        typer.echo(_json(studies))
        return
    for study in studies:
        _print(study)
    if output is not None:
        typer.echo(f"{output / FIGURE} and {output / RECORD} are written")


def _study(
    path: Path,
    scan: Path,
    channel: list[int] | None,
    series: str | None,
    selection: Selection,
    allow_imports: bool,
) -> ActivationStudy:
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import Progress

    from leanseg.datasets import load_case
    from leanseg.inference.inputs import DicomChoice, collect_tasks
    from leanseg.modelfile import read_model
    from leanseg.reports.activation_study import study_activations

    file = read_model(path)
    tasks = collect_tasks([scan], file.plan, channel, DicomChoice(series))
    if len(tasks) != 1:
        msg = f"{scan}: holds {len(tasks)} scans, but one is studied at a time; give one of them"
        raise DatasetError(msg)
    (task,) = tasks
    # The label plays no part.
    image, _ = load_case(replace(task.case, label_parts=()))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(path.name, total=None)
        return study_activations(
            file,
            image,
            task.channel_indices,
            selection,
            name=task.case.name,
            allow_imports=allow_imports,
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )


def _json(studies: list[ActivationStudy]) -> str:
    # Numbers that JSON does not have would have been refused before.
    return json.dumps(
        {"studies": [study.to_json() for study in studies]}, ensure_ascii=False, allow_nan=False
    )


def _write(folder: Path, studies: list[ActivationStudy]) -> None:
    from leanseg.reports.activation_figure import write_figure
    from leanseg.volumes.atomic import written_whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: the folder cannot be made ({error.strerror}); give another name"
        raise LeansegError(msg) from error
    with written_whole(folder / RECORD) as scratch:
        scratch.write_text(_json(studies) + "\n", encoding="utf-8")
    write_figure(folder / FIGURE, studies)


def _print(study: ActivationStudy) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("activation")
    for column in ("channels", "size", "dead", "near zero", "at floor", "negative", "mean", "sd"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    stages = {id(layer): name for name, layer in study.shown.items()}
    for layer in study.layers:
        table.add_row(
            Text(layer.name),
            layer.kind,
            str(layer.channels),
            " x ".join(str(n) for n in layer.size),
            str(len(layer.dead)),
            f"{layer.near_zero:.1%}",
            "-" if layer.at_floor is None else f"{layer.at_floor:.1%}",
            f"{layer.negative:.1%}",
            f"{layer.mean:.3f}",
            f"{layer.sd:.3f}",
            stages.get(id(layer), ""),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        # A log has no width: nothing is cut.
        console = Console(highlight=False, width=_LOG_WIDTH)
    console.print(table)
    seen = f"{len(study.inputs)} of {study.n_inputs} {study.unit}s"
    which = f", the first of {study.members} networks" if study.members > 1 else ""
    console.print(
        f"{study.n_dead} of {study.n_channels} channels are dead "
        f"({study.network}{which}; {study.scan}, {seen})",
        markup=False,
        soft_wrap=True,
    )
