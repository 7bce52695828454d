"""`leanseg study`: a matrix of trainings from a file to its table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import console, print_table
from leanseg.errors import RecipeError, told

if TYPE_CHECKING:
    from leanseg.executors import Executor
    from leanseg.studies import Study, TimesStudy

EXIT_SOME_FAILED = 1


def command(
    study: Annotated[
        str | None, typer.Argument(help="A study file, or a built-in study's name.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Location of a dataset of the study: NAME=FOLDER; may repeat."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The study's folder. Default: in studies/."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run the study's small version, to try it out.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at a time; as many as the cores allow if not given."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory limit of all cells together, such as 16GB.")
    ] = None,
    on: options.On = "here",
    address: options.Address = None,
    check: Annotated[
        bool, typer.Option(help="Look for problems in the data first, as `leanseg check` does.")
    ] = True,
    listed: Annotated[bool, typer.Option("--list", help="List the built-in studies.")] = False,
) -> None:
    """Train every recipe of a study on every dataset, fold and seed, and print the table.

    Finished cells are skipped, and interrupted ones continue. A cell that fails is named and does
    not stop the others; the exit status is then 1.
    """
    from leanseg.studies import (
        TimesStudy,
        load_study,
        read_study,
        run_study,
        write_reports,
        write_results,
    )
    from leanseg.studies.results import QUICK
    from leanseg.studies.run import usual_folder

    if listed:
        _list()
        return
    if study is None:
        raise RecipeError("give a study file or a built-in study (leanseg study --list)")
    loaded = load_study(study, data=_places(data or ()), quick=quick)
    folder = output or usual_folder(loaded)
    if isinstance(loaded, TimesStudy):
        _time(loaded, folder)
        return
    with _executor(loaded, jobs, memory, on, address) as executor:
        outcome = run_study(loaded, folder, executor, checked=check, tell=_tell)
    results = read_study(folder)
    tables, said = write_results(results)
    reports = write_reports(results)
    for table in tables:
        rows, notes = table.cells()
        print_table(rows, left=("method",), title=told(table.title))
        for note in notes:
            console().print(told(note), style="dim", soft_wrap=True)
    for line in said:
        console().print(told(line), soft_wrap=True)
    if loaded.is_quick:
        console().print(QUICK, style="yellow", soft_wrap=True)
    for name, why in outcome.failed.items():
        console().print(told(f"failed: {name}: {why}"), style="red", soft_wrap=True)
    written = ["table.csv", "results.csv", *(path.name for path in reports)]
    typer.echo(f"wrote {folder / 'table.md'}, {', '.join(written[:-1])} and {written[-1]}")
    if outcome.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _time(study: TimesStudy, folder: Path) -> None:
    from leanseg.studies.results import QUICK
    from leanseg.studies.times import TABLE_FILE, TIMES_FILE, run_times

    found = run_times(study, folder, _tell)
    rows, notes = found.cells()
    print_table(rows, left=("network",), title=told(study.title or study.name))
    for line in [*notes, *found.tests()]:
        console().print(told(line), style="dim", soft_wrap=True)
    if study.is_quick:
        console().print(QUICK, style="yellow", soft_wrap=True)
    typer.echo(f"wrote {folder / TABLE_FILE} and {TIMES_FILE}")


def _tell(text: str) -> None:
    # Whoever looks at a log wants to see it at once.
    print(told(text), flush=True)


def _places(data: Sequence[str]) -> dict[str, Path]:
    found = {}
    for text in data:
        name, equals, place = text.partition("=")
        if not equals or not place:
            raise RecipeError(f"--data {text}: write it as NAME=FOLDER, with a name of the study's")
        found[name] = Path(place)
    return found


def _executor(
    study: Study, jobs: int | None, memory: str | None, on: str, address: str | None
) -> AbstractContextManager[Executor]:
    from leanseg.executors import Processes, ray_tasks
    from leanseg.inference.memory import parse_bytes
    from leanseg.machine import usable_cores

    ceiling = None if memory is None else parse_bytes(memory)
    n = jobs or max(len(usable_cores()) // study.threads, 1)
    if options.on_ray(on, address):
        if address is not None and (jobs or memory):
            raise RecipeError(
                "--jobs and --memory are for this machine; a Ray cluster knows its own cores and "
                "memory, so leave them out beside --address"
            )
        return ray_tasks(address, alone=True, cores=n * study.threads, memory_bytes=ceiling)
    if ceiling is None:
        import psutil

        ceiling = int(psutil.virtual_memory().total)
    return nullcontext(Processes(n, ceiling))


def _list() -> None:
    from leanseg.studies import TimesStudy, builtin_studies
    from leanseg.studies.definition import parse_study

    rows = []
    for name, text in builtin_studies().items():
        study = parse_study(text, name)
        if isinstance(study, TimesStudy):
            rows.append(_listed(name, study, "none", "-"))
            continue
        n = len(study.trained_on) * len(study.folds) * len(study.seeds) * len(study.recipes)
        n *= max(len(study.overrides), 1)
        rows.append(_listed(name, study, ", ".join(study.datasets), str(n)))
    print_table(rows, left=("study", "title", "data"))


def _listed(name: str, study: Study | TimesStudy, data: str, cells: str) -> dict[str, str]:
    quick = "yes" if study.quick else "no"
    return {"study": name, "title": study.title, "data": data, "cells": cells, "quick": quick}
