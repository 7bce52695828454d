"""`leanseg import-weights`: published checkpoints as model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli import options
from leanseg.errors import RecipeError

SOURCES = ("obelisk",)


def command(
    source: Annotated[str, typer.Argument(help="Whose checkpoints: obelisk.")],
    checkpoints: Annotated[
        list[Path], typer.Argument(help="The .pth files; several become one ensemble.")
    ],
    output: options.ModelOutput,
) -> None:
    """Turn checkpoints that a network's authors published into a model file.

    Nothing but tensors is unpickled. Several checkpoints of one network become an ensemble whose
    probabilities are averaged.
    """
    if source not in SOURCES:
        msg = f"no checkpoints of {source!r} are known; choose one of {', '.join(SOURCES)}"
        raise RecipeError(msg)
    from leanseg.cli.export import agreement
    from leanseg.training.obelisk import import_obelisk

    model = import_obelisk(checkpoints, output)
    n, network = len(model.members), model.members[0].network.name
    kind = network if n == 1 else f"ensemble of {n} {network}"
    typer.echo(f"{output}: {kind}, {', '.join(model.plan.labels)}")
    if model.is_exported:
        typer.echo(f"exported: {agreement(model)}")
    else:
        typer.echo("it needs PyTorch to run: the packages that export networks are not installed")
