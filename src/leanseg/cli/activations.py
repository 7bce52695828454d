"""`leanseg activations`: how much of a network takes part in what it says of a scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.errors import DatasetError, LeansegError

if TYPE_CHECKING:
    from leanseg.reports.activations import ActivationStudy

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
    inputs: Annotated[
        int,
        typer.Option(min=1, help="How many slices (or tiles) are looked at, evenly spaced."),
    ] = 24,
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
) -> None:
    """Histograms of a network's feature maps, and its dead channels (paper 000, figure 5).

    Looked at is what stands right behind every activation function while the network sees slices
    of the scan. A channel is dead if it never leaves the function's floor (ReLU 0, ELU -1).
    """
    from rich.console import Console

    from leanseg.cli.requirements import require_torch

    require_torch("leanseg activations")
    studies = []
    for path in (model, *(against or ())):
        with Console(stderr=True).status(f"looking into {path.name}"):
            studies.append(_study(path, scan, channel, series, inputs, allow_imports))
    if output is not None:
        _write(output, studies)
    for study in studies:
        _print(study)
    if output is not None:
        typer.echo(f"{output / FIGURE} and {output / RECORD} are written")


def _study(
    path: Path,
    scan: Path,
    channel: list[int] | None,
    series: str | None,
    max_inputs: int,
    allow_imports: bool,
) -> ActivationStudy:
    from leanseg.inference.inputs import DicomChoice, collect_tasks, open_scan
    from leanseg.modelfile import read_model
    from leanseg.reports.activations import study_activations

    file = read_model(path)
    tasks = collect_tasks([scan], file.manifest.plan, channel, DicomChoice(series))
    if len(tasks) != 1:
        msg = f"{scan}: holds {len(tasks)} scans, but one is studied at a time; give one of them"
        raise DatasetError(msg)
    (task,) = tasks
    return study_activations(
        file,
        open_scan(task.case),
        task.channel_indices,
        max_inputs=max_inputs,
        name=task.case.name,
        allow_imports=allow_imports,
    )


def _write(folder: Path, studies: list[ActivationStudy]) -> None:
    from leanseg.reports.activation_figure import write_figure
    from leanseg.volumes.atomic import written_whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: the folder cannot be made ({error.strerror}); give another name"
        raise LeansegError(msg) from error
    content = {"format": "leanseg-activations", "studies": [one.to_json() for one in studies]}
    with written_whole(folder / RECORD) as scratch:
        scratch.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
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
    for layer in study.layers:
        table.add_row(
            Text(layer.name),
            layer.function,
            str(layer.n_channels),
            " x ".join(str(n) for n in layer.size),
            str(len(layer.dead)),
            f"{layer.near_zero:.1%}",
            "-" if layer.at_floor is None else f"{layer.at_floor:.1%}",
            f"{layer.negative:.1%}",
            f"{layer.mean:.3f}",
            f"{layer.sd:.3f}",
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        # A log has no width: nothing is cut.
        console = Console(highlight=False, width=_LOG_WIDTH)
    console.print(table)
    console.print(study.summary, markup=False, soft_wrap=True)
