"""`leanseg export`: the network of a model file made ready for machines without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options

if TYPE_CHECKING:
    from leanseg.modelfile import ModelFile


def command(
    model: options.Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; the file itself if not given."),
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="Also write the network as a plain ONNX file here.")
    ] = None,
    allow_imports: options.AllowImports = False,
) -> None:
    """Export the network of a model file, check it against PyTorch, and put it into the file.

    The file is written only if at least 99.99 % of the labels are PyTorch's.
    """
    from leanseg.files import require_outputs, written_whole
    from leanseg.modelfile import read_model, with_weights, write_model
    from leanseg.training.export import export_model

    target = output or model
    # The model itself may be replaced by the exported one.
    require_outputs([target, onnx], new_folders=True)
    require_outputs([onnx], [model], new_folders=True)
    exported = write_model(target, export_model(read_model(model), allow_imports=allow_imports))
    typer.echo(f"{target}: {agreement(exported)}")
    if onnx is not None:
        first, *others = exported.members
        assert first.exported is not None
        with written_whole(onnx, in_new_folder=True) as scratch:
            scratch.write_bytes(with_weights(first.exported.graph, first.weights))
        which = ", the first of the ensemble" if others else ""
        typer.echo(f"{onnx}: the network with its weights{which}, logits")


def agreement(model: ModelFile) -> str:
    """How far an exported model agrees with PyTorch, in words."""
    records = [each.exported.record for each in model.networks if each.exported is not None]
    equal = min(record.equal_labels for record in records)
    return f"{100 * equal:.3f} % of the labels as from PyTorch ({records[0].checked_with})"
