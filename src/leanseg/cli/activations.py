"""`leanseg activations`: how much of a network takes part in what it says of a scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import print_table, progress
from leanseg.errors import DatasetError

if TYPE_CHECKING:
    from leanseg.reports.activation_layers import LayerActivity
    from leanseg.reports.activations import ActivationStudy

FIGURE, MAPS, RECORD = "activations.png", "feature-maps.png", "activations.json"


def command(
    model: options.Model,
    scan: Annotated[Path, typer.Argument(help="A scan: a file, a DICOM folder or zip.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another model for the same scan, shown below; may repeat."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Folder for {FIGURE}, {MAPS}, {RECORD}."),
    ] = None,
    inputs: Annotated[
        int,
        typer.Option(min=1, help="Number of slices (or tiles) to look at, evenly spaced."),
    ] = 24,
    channel: options.Channels = None,
    allow_imports: options.AllowImports = False,
) -> None:
    """Histograms and pictures of a network's feature maps; its dead channels (000, figure 5).

    Looks at the output of every activation function while the network sees slices of the scan.
    A channel is dead if it never leaves the function's floor (ReLU 0, ELU -1).
    """
    from leanseg.files import require_outputs

    if output is not None:
        read = (scan, model, *(against or ()))
        require_outputs([output / name for name in (FIGURE, MAPS, RECORD)], read, new_folders=True)
    studies = []
    with progress() as display:
        for path in (model, *(against or ())):
            display.begin(f"looking into {path.name}", None)
            studies.append(_study(path, scan, channel, inputs, allow_imports))
    if output is not None:
        _write(output, studies)
    for study in studies:
        print_table([_row(layer) for layer in study.layers], left=("layer", "activation"))
        typer.echo(study.summary)
    if output is not None:
        typer.echo(f"{output / FIGURE}, {MAPS} and {RECORD} are written")


def _study(
    path: Path, scan: Path, channel: list[int] | None, max_inputs: int, allow_imports: bool
) -> ActivationStudy:
    from leanseg.inference import load_model
    from leanseg.inference.inputs import collect_tasks, open_scan
    from leanseg.reports.activations import study_activations

    model = load_model(path, engine="torch", allow_imports=allow_imports)
    tasks = collect_tasks([scan], model.plan, channel)
    if len(tasks) != 1:
        msg = f"{scan}: holds {len(tasks)} scans, but one is studied at a time; give one of them"
        raise DatasetError(msg)
    (task,) = tasks
    return study_activations(
        model,
        open_scan(task.case),
        task.channel_indices,
        max_inputs=max_inputs,
        name=task.case.name,
        allow_imports=allow_imports,
    )


def _write(folder: Path, studies: list[ActivationStudy]) -> None:
    from leanseg.files import write_text
    from leanseg.reports.activation_figure import write_figure, write_maps

    content = {"format": "leanseg-activations", "studies": [one.to_json() for one in studies]}
    write_text(folder / RECORD, json.dumps(content, allow_nan=False) + "\n")
    write_figure(folder / FIGURE, studies)
    write_maps(folder / MAPS, studies)


def _row(layer: LayerActivity) -> dict[str, str]:
    return {
        "layer": layer.name,
        "activation": layer.function,
        "channels": str(layer.n_channels),
        "size": " x ".join(str(n) for n in layer.size),
        "dead": str(len(layer.dead)),
        "near zero": f"{layer.near_zero:.1%}",
        "at floor": "-" if layer.at_floor is None else f"{layer.at_floor:.1%}",
        "negative": f"{layer.negative:.1%}",
        "mean": f"{layer.mean:.3f}",
        "sd": f"{layer.sd:.3f}",
    }
