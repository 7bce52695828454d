"""`leanseg train`: plan and start a run, start one by a recipe, or resume one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.errors import RecipeError
from leanseg.progress import tells_the_end

if TYPE_CHECKING:
    from rich.console import Console

    from leanseg.training import Planned, Run


def command(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe file, or a built-in recipe's name; planned if not given."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A dataset (folder, zip or listing); repeat to train on several."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the run; new or empty. Default: in runs/."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run; gives the very same weights.")
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="With --resume: make the model now.")
    ] = False,
    overrides: options.Overrides = None,
    minutes: options.Minutes = None,
    cpu_minutes: options.CpuMinutes = None,
    steps: options.Steps = None,
    quality: options.Quality = None,
    memory: options.Memory = None,
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
        bool, typer.Option(help="Look for problems in the data first, as `leanseg check` does.")
    ] = True,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for prepared arrays, to share between runs.")
    ] = None,
) -> None:
    """Train a network on a dataset, planned for it or by a recipe, or resume a run."""
    from rich.console import Console

    from leanseg.training import load_recipe, open_run, ranks, start_run, train_run
    from leanseg.training.planning import budget_of, plan_training
    from leanseg.training.run import open_datasets, require_free, usual_folder

    console = Console(highlight=False, soft_wrap=True)
    if finish and resume is None:
        raise RecipeError("--finish ends a run that was interrupted; give it with --resume RUN")
    with ranks.together(resume or output):
        planned: Planned | None = None
        if resume is not None:
            own = (recipe, data, output, overrides, minutes, cpu_minutes, steps, quality, memory)
            if any(each is not None for each in (*own, folds, threads, devices, init, seed)):
                msg = "--resume takes only the run's folder; recipe, data and budget are in the run"
                raise RecipeError(msg)
            run = open_run(resume, cache)
        else:
            if not data:
                raise RecipeError("give --data FOLDER (or --resume RUN)")
            given = {
                "folds": folds if folds in (None, "all") else f"[{folds}]",
                "threads": threads,
                "devices": devices,
                "seed": seed,
            }
            start = [] if init is None else [f"init={json.dumps(str(init.resolve()))}"]
            settings = [
                f"training.{key}={value}" for key, value in given.items() if value is not None
            ]
            overrides = [*(overrides or ()), *start, *settings]
            if output is not None:
                # Before minutes go into a plan.
                require_free(output)
            if recipe is None:
                budget = budget_of(minutes, cpu_minutes, steps, quality, memory)
                planned = plan_training(
                    open_datasets(data), budget, cache=cache, overrides=overrides, console=console
                )
                loaded = planned.recipe
                console.print("\n".join(["", *planned.lines(), ""]), markup=False)
            else:
                if quality is not None or memory is not None:
                    raise RecipeError(
                        "--quality and --memory are for a training that is planned; leave out the "
                        f"recipe ({recipe})"
                    )
                loaded = load_recipe(recipe, overrides).within(minutes, cpu_minutes, steps)
            folder = output or usual_folder(open_datasets(data), loaded)
            run = start_run(loaded, data, folder, cache, check=check, console=console)
            if planned is not None:
                planned.write(run.folder)
        try:
            models = train_run(run, console, finish=finish)
        except KeyboardInterrupt:
            if tells_the_end():
                typer.echo(f"continue with: leanseg train --resume {run.folder}")
                typer.echo(f"or make a model of it: leanseg train --resume {run.folder} --finish")
            raise
        if not tells_the_end():
            return
        _tell_the_end(run, models, console)


def _tell_the_end(run: Run, models: list[Path], console: Console) -> None:
    """What was true of the plan, whether the network beats a constant mask, and what is there."""
    from leanseg.reports.baseline import baseline_rows, run_baseline
    from leanseg.reports.run_folder import read_run_folder
    from leanseg.training.planning import cards_of

    cards = cards_of(run.folder)
    if cards is not None:
        said, was = cards
        console.print("\n".join(["", *said.lines(was)]), markup=False)
    reported = read_run_folder(run.folder)
    for row in baseline_rows(reported, run_baseline(reported)):
        worse = "" if row["network"] > row["baseline"] else "; it has learned no more than that"
        console.print(
            f"{row['label']}: Dice {row['network']:.3f} on {row['n']} test case(s); a mask that is "
            f"the same for every scan has {row['baseline']:.3f}{worse}",
            markup=False,
        )
    if cards is not None and len(models) > 1:
        models = [_ensemble(run, models)]
    for path in models:
        typer.echo(f"model: {path}")
    typer.echo(f"next: leanseg report {run.folder}")


def _ensemble(run: Run, models: list[Path]) -> Path:
    """The folds of a planned training as one model, which averages them."""
    from leanseg.modelfile import join_members, read_model, write_model
    from leanseg.training.folder import MODEL_FILE

    path = run.folder / MODEL_FILE
    write_model(path, join_members([read_model(each) for each in models]))
    return path
