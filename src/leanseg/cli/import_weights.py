"""`leanseg import-weights`: published checkpoints as model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.errors import RecipeError

SOURCES = ("obelisk",)


def command(
    source: Annotated[str, typer.Argument(help="Whose checkpoints: obelisk.")],
    checkpoints: Annotated[
        list[Path], typer.Argument(help="The .pth files; several become one ensemble.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write.")],
) -> None:
    """Turn checkpoints that a network's authors published into a model file.

    Nothing but tensors is unpickled. Several checkpoints of one network become an ensemble whose
    probabilities are averaged.
    """
    if source not in SOURCES:
        msg = f"no checkpoints of {source!r} are known; choose one of {', '.join(SOURCES)}"
        raise RecipeError(msg)
    from leanseg.training.obelisk import import_obelisk

    manifest = import_obelisk(checkpoints, output)
    network = manifest.network.name
    kind = network if manifest.members == 1 else f"ensemble of {manifest.members} {network}"
    typer.echo(f"{output}: {kind}, {', '.join(manifest.plan.labels)}")
    if manifest.export is None:
        typer.echo("it needs PyTorch to run: the packages that export networks are not installed")
    else:
        share = 100 * manifest.export.equal_labels
        typer.echo(f"exported: {share:.3f} % of the labels as from PyTorch")
