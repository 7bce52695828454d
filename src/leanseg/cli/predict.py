"""`leanseg predict`: label maps for scans, in each scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.errors import LeansegError

if TYPE_CHECKING:
    from rich.console import Console

    from leanseg.inference.batch import CaseResult
    from leanseg.inference.inputs import PredictionTask
    from leanseg.inference.model import Model

EXIT_SOME_FAILED = 1


def command(
    model: Annotated[Path, typer.Argument(help="A model file (.leanseg).")],
    inputs: Annotated[
        list[Path], typer.Argument(help="Scan files, folders of scans, or dataset folders.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the label maps.")],
    engine: Annotated[str, typer.Option(help="auto, or a registered engine.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, f32 or bf16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads for the network.")] = None,
    channel: Annotated[
        list[int] | None,
        typer.Option(help="Which channel of a 4-D scan is the model's, from 0; may repeat."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there already.")
    ] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="Also show the seconds of each stage.")
    ] = False,
) -> None:
    """Segment scans with a model file; results lie in each scan's own grid."""
    from rich.console import Console

    from leanseg.inference.inputs import collect_tasks
    from leanseg.inference.model import load_model

    console = Console()
    loaded = load_model(model, engine=engine, precision=precision, threads=threads)
    tasks = collect_tasks(inputs, loaded.plan, channel)
    results = _run(loaded, tasks, output, overwrite, console)
    failed = [result for result in results if result.status == "failed"]
    if len(results) == 1 and failed:
        raise LeansegError(failed[0].message)
    console.print(_table(results, loaded.labels, stages))
    for result in failed:
        console.print(
            f"failed: {result.name}: {result.message}", style="red", markup=False, soft_wrap=True
        )
    console.print(
        f"{len(results) - len(failed)} of {len(results)} label maps are in {output}",
        highlight=False,
        soft_wrap=True,
    )
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _run(
    model: Model,
    tasks: Sequence[PredictionTask],
    output: Path,
    overwrite: bool,
    console: Console,
) -> list[CaseResult]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from leanseg.inference.batch import predict_all

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("predicting", total=len(tasks), detail="")
        started = 0

        def on_case(name: str) -> None:
            nonlocal started
            progress.update(bar, completed=started, description=name, detail="reading")
            started += 1
            if not console.is_terminal:
                console.print(f"{started}/{len(tasks)} {name}", highlight=False, markup=False)

        def on_slices(done: int, total: int) -> None:
            share = started - 1 + done / total
            progress.update(bar, completed=share, detail=f"slice {done}/{total}")

        return predict_all(
            model, tasks, output, overwrite=overwrite, on_case=on_case, on_slices=on_slices
        )


def _table(results: Sequence[CaseResult], labels: dict[str, int], stages: bool) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("case")
    table.add_column("status")
    table.add_column("seconds", justify="right")
    table.add_column("peak MB", justify="right")
    for name in labels:
        table.add_column(f"{name} (ml)", justify="right")
    names = ("read", "preprocess", "network", "restore", "postprocess", "write") if stages else ()
    for stage in names:
        table.add_column(stage, justify="right")
    for result in results:
        ran = result.status == "done"
        cells = [
            result.name,
            result.status,
            f"{result.seconds:.1f}" if ran else "",
            f"{result.peak_memory_mb:.0f}" if ran else "",
            *(f"{result.volumes_ml[n]:.1f}" if result.volumes_ml else "" for n in labels),
            *(f"{result.stages[stage]:.2f}" if ran else "" for stage in names),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table
