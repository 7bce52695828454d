"""`leanseg stack`: networks of several runs, and a small one that combines them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli import options


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Finished runs on the same data, of several folds."),
    ],
    output: options.NewFolder,
    top: Annotated[
        int, typer.Option(min=1, help="Number of networks of each recipe; the best are taken.")
    ] = 5,
    labels_of: Annotated[
        Path | None, typer.Option(help="The run whose labels are used; default: the one with most.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs for each fold, at most; 20 if not given.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes for each fold.")] = None,
    cpu_minutes: options.CpuMinutes = None,
    threads: options.Threads = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 42,
    cache: Annotated[Path | None, typer.Option(help="Folder for the networks' maps.")] = None,
) -> None:
    """Train a small network that combines those of several runs: a stacked CNN (paper 002).

    It learns from maps of networks that did not see the case, so runs need several folds. The
    model file holds all members.
    """
    from rich.console import Console

    from leanseg.modelfile import read_model
    from leanseg.training.folder import MODEL_FILE
    from leanseg.training.stacking import stack_runs

    run = stack_runs(
        runs,
        output,
        top=top,
        labels_of=labels_of,
        epochs=epochs,
        minutes=minutes,
        cpu_minutes=cpu_minutes,
        threads=threads,
        seed=seed,
        cache=cache,
        console=Console(highlight=False, soft_wrap=True),
    )
    path = run.folder / MODEL_FILE
    typer.echo(f"model: {path}")
    if not read_model(path).is_exported:
        typer.echo("it needs PyTorch to run; 'leanseg export' changes that")
    typer.echo(f"next: leanseg report {run.folder}")
