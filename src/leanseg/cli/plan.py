"""`leanseg plan`: what `leanseg train` would do with a dataset and a budget, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli import options


def command(
    data: Annotated[
        list[Path],
        typer.Argument(help="A dataset (folder, zip or listing), or several that train together."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the plan as a recipe (YAML).")
    ] = None,
    overrides: options.Overrides = None,
    minutes: options.Minutes = None,
    cpu_minutes: options.CpuMinutes = None,
    steps: options.Steps = None,
    quality: options.Quality = None,
    memory: options.Memory = None,
    threads: options.Threads = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the facts about each case.")
    ] = None,
) -> None:
    """Plan a training: what the network would see, for how long, and what that costs."""
    from rich.console import Console

    from leanseg.files import require_outputs, write_text
    from leanseg.training.planning import budget_of, plan_training
    from leanseg.training.run import open_datasets

    if output is not None:
        require_outputs([output], data)
    settings = [] if threads is None else [f"training.threads={threads}"]
    planned = plan_training(
        open_datasets(data),
        budget_of(minutes, cpu_minutes, steps, quality, memory),
        cache=cache,
        overrides=[*(overrides or ()), *settings],
        console=Console(highlight=False, soft_wrap=True, stderr=True),
    )
    typer.echo("\n".join(planned.lines()))
    if output is not None:
        write_text(output, planned.recipe.to_yaml())
        typer.echo(f"\nnext: leanseg train {output} {' '.join(f'--data {each}' for each in data)}")
