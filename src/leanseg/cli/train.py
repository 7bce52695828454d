"""`leanseg train`: start a run by a recipe, or resume one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from leanseg.errors import RecipeError

_UNIT_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds from "90", "90s", "20m" or "1.5h".

    Raises:
        RecipeError: If the text is none of these, or not above zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    seconds = float(match[1]) * _UNIT_SECONDS[match[2] or ""] if match else 0.0
    if seconds <= 0:
        msg = f"time budget {text!r}: write it as 90s, 20m or 1.5h"
        raise RecipeError(msg)
    return seconds


def parse_folds(folds: str) -> list[int] | str:
    """The folds that `--folds` names: "all", or numbers such as "0,2".

    Raises:
        RecipeError: If the text is neither.
    """
    if folds == "all":
        return "all"
    try:
        return [int(part) for part in folds.split(",")]
    except ValueError as error:
        msg = f"--folds {folds!r}: write 'all', or numbers such as 0,2"
        raise RecipeError(msg) from error


def command(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a built-in recipe.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A dataset (folder, zip or listing); repeat to train on several."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the run; new or empty.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run, to the very same weights.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of the recipe: training.epochs=20."),
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Stop after this long with a model: 90s, 20m, 1.5h.")
    ] = None,
    cpu_budget: Annotated[
        str | None, typer.Option(help="The same in processor time of all threads.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Train this fold of the split.")] = None,
    folds: Annotated[str | None, typer.Option(help="Folds to train: all, or 0,2.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="32, bf16-mixed, or auto: decided by a short measurement.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load slices.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads for PyTorch.")] = None,
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

    from leanseg.cli.requirements import require_torch

    require_torch("leanseg train")
    from leanseg.training import load_recipe, open_run, start_run, train_run

    console = Console()
    if resume is not None:
        if recipe is not None or data or output is not None or overrides:
            msg = "--resume takes the run's folder alone; recipe and data are in the run"
            raise RecipeError(msg)
        run = open_run(resume, cache)
    else:
        if recipe is None or not data or output is None:
            msg = "give a recipe, --data FOLDER and --output RUN (or --resume RUN)"
            raise RecipeError(msg)
        settings = list(overrides or [])
        if time_budget is not None:
            settings.append(f"training.time_budget_s={parse_duration(time_budget)}")
        if cpu_budget is not None:
            settings.append(f"training.cpu_budget_s={parse_duration(cpu_budget)}")
        if fold is not None:
            settings.append(f"training.folds=[{fold}]")
        if folds is not None:
            settings.append(f"training.folds={parse_folds(folds)}")
        options = {"precision": precision, "workers": workers, "threads": threads, "seed": seed}
        for key, value in options.items():
            if value is not None:
                text = f"'{value}'" if key == "precision" else value
                settings.append(f"training.{key}={text}")
        loaded = load_recipe(recipe, settings)
        run = start_run(loaded, data, output, cache, check=check, console=console)
    try:
        models = train_run(run, console)
    except KeyboardInterrupt:
        hint = f"go on with: leanseg train --resume {run.folder}"
        console.print(hint, highlight=False, soft_wrap=True)
        raise
    for path in models:
        console.print(f"model: {path}", highlight=False, soft_wrap=True)
    console.print(f"next: leanseg report {run.folder}", highlight=False, soft_wrap=True)
