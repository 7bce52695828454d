"""`leanseg export`: the network of a model file made ready for machines without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from leanseg.modelfile import ModelFile


def command(
    model: Annotated[Path, typer.Argument(help="A model file (.leanseg).")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; the file itself if not given."),
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="Also write the network as a plain ONNX file here.")
    ] = None,
    allow_imports: Annotated[
        bool,
        typer.Option("--allow-imports", help="Run network code that the model file names."),
    ] = False,
) -> None:
    """Export the network of a model file, check it against PyTorch, and put it into the file.

    The file is written only if at least 99.99 % of the labels are PyTorch's.
    """
    from leanseg.modelfile import read_model, with_weights, write_model
    from leanseg.training.export import export_model
    from leanseg.volumes.atomic import written_whole

    exported = export_model(read_model(model), allow_imports=allow_imports)
    assert exported.exported is not None
    target = output or model
    write_model(target, exported.manifest, exported.weights, exported.exported)
    _tell(target, exported)
    if onnx is not None:
        member = exported.members()[0]
        with written_whole(onnx) as scratch:
            scratch.write_bytes(with_weights(exported.exported.graph, member.weights))
        which = ", the first of the ensemble" if exported.manifest.members > 1 else ""
        typer.echo(f"{onnx}: the network with its weights{which}, logits")


def _tell(path: Path, model: ModelFile) -> None:
    record = model.manifest.export
    assert record is not None
    typer.echo(
        f"{path}: {100 * record.equal_labels:.3f} % of the labels as from PyTorch "
        f"({record.checked_with})"
    )
