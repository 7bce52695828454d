"""`leanseg train`: start a run by a recipe, or resume one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli import options
from leanseg.errors import RecipeError
from leanseg.progress import tells_the_end

_UNIT_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds from "90", "90s", "20m" or "1.5h".

    Raises:
        RecipeError: If the text is none of these, or not above zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    seconds = float(match[1]) * _UNIT_SECONDS[match[2] or ""] if match else 0.0
    if seconds <= 0:
        raise RecipeError(f"time budget {text!r}: write it as 90s, 20m or 1.5h")
    return seconds


def command(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a built-in recipe.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A dataset (folder, zip or listing); repeat to train on several."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the run; new or empty.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run, to the very same weights.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of the recipe: phases.0.epochs=20."),
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Stop after this long with a model: 90s, 20m, 1.5h.")
    ] = None,
    cpu_budget: Annotated[
        str | None, typer.Option(help="The same in processor time of all threads.")
    ] = None,
    folds: Annotated[str | None, typer.Option(help="Folds to train: all, or 0,2.")] = None,
    threads: options.Threads = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices of this machine that train together.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="A model file to start from, where its weights fit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training.")] = None,
    check: Annotated[
        bool, typer.Option(help="Look for mistakes in the data first, as `leanseg check` does.")
    ] = True,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for prepared arrays, to share between runs.")
    ] = None,
) -> None:
    """Train a network by a recipe, or resume a run that was interrupted."""
    from rich.console import Console

    from leanseg.training import load_recipe, open_run, ranks, start_run, train_run

    console = Console(highlight=False, soft_wrap=True)
    with ranks.together(resume or output):
        if resume is not None:
            if recipe is not None or data or output is not None or overrides:
                msg = "--resume takes the run's folder alone; recipe and data are in the run"
                raise RecipeError(msg)
            run = open_run(resume, cache)
        else:
            if recipe is None or not data or output is None:
                raise RecipeError("give a recipe, --data FOLDER and --output RUN (or --resume RUN)")
            given = {
                "folds": folds if folds in (None, "all") else f"[{folds}]",
                "threads": threads,
                "devices": devices,
                "seed": seed,
            }
            start = [] if init is None else [f"init={json.dumps(str(init.resolve()))}"]
            overrides = [*(overrides or ()), *start]
            settings = [
                f"training.{key}={value}" for key, value in given.items() if value is not None
            ]
            minutes, cpu_minutes = (
                None if text is None else parse_duration(text) / 60
                for text in (time_budget, cpu_budget)
            )
            loaded = load_recipe(recipe, [*overrides, *settings]).within(minutes, cpu_minutes)
            run = start_run(loaded, data, output, cache, check=check, console=console)
        try:
            models = train_run(run, console)
        except KeyboardInterrupt:
            if tells_the_end():
                typer.echo(f"go on with: leanseg train --resume {run.folder}")
            raise
        if not tells_the_end():
            return
        for path in models:
            typer.echo(f"model: {path}")
        typer.echo(f"next: leanseg report {run.folder}")
