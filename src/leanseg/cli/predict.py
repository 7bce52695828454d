"""`leanseg predict`: label maps for scans, in each scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.errors import LeansegError

if TYPE_CHECKING:
    from rich.table import Table

    from leanseg.inference.batch import CaseResult
    from leanseg.inference.inputs import PredictionTask
    from leanseg.inference.model import Model

EXIT_SOME_FAILED = 1
# With more labels than these their volumes get a table of their own.
_MOST_COLUMNS = 5
_LOG_WIDTH = 200


def command(
    model: Annotated[Path, typer.Argument(help="A model file (.leanseg).")],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Scan files, DICOM folders or zips, folders of scans, or datasets."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the label maps.")],
    form: Annotated[
        str,
        typer.Option("--format", help="nifti, or for DICOM: dicom-seg, dicom-labelmap, rtstruct."),
    ] = "nifti",
    engine: Annotated[str, typer.Option(help="auto, or a registered engine.")] = "auto",
    precision: Annotated[str, typer.Option(help="f32, bf16 or f16.")] = "f32",
    device: Annotated[
        str, typer.Option(help="cpu, or cuda, cuda:1, mps: a GPU, for which PyTorch is needed.")
    ] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for the network.")] = None,
    tta: Annotated[
        str,
        typer.Option(help="Test-time augmentation: none, flips, shifts or flips,shifts; slower."),
    ] = "none",
    max_memory: Annotated[
        str | None,
        typer.Option(help="Ceiling on this process's memory, such as 1GB or 800MiB."),
    ] = None,
    channel: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Which channel of a 4-D scan is the model's, from 0; may repeat."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="Which DICOM series: its number, description or UID.")
    ] = None,
    phase: Annotated[
        int | None, typer.Option(min=1, help="Which phase of a DICOM series with several.")
    ] = None,
    fill_missing: Annotated[
        bool, typer.Option("--fill-missing", help="Interpolate missing DICOM slices.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there already.")
    ] = False,
    allow_imports: Annotated[
        bool,
        typer.Option("--allow-imports", help="Run network code that the model file names."),
    ] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="Also show the seconds of each stage.")
    ] = False,
) -> None:
    """Segment scans with a model file; results lie in each scan's own grid.

    A result that is there already from the same model and scan is kept. One bad scan does not
    stop the others: it is named at the end, and the exit status is 1.
    """
    with _Display() as display:
        from leanseg.inference.inputs import DicomChoice, collect_tasks
        from leanseg.inference.model import load_model

        loaded = load_model(
            model,
            engine=engine,
            precision=precision,
            device=device,
            threads=threads,
            tta=tta,
            max_memory=max_memory,
            allow_imports=allow_imports,
            # Meanwhile the first scan is found and read.
            in_background=True,
        )
        dicom = DicomChoice(series, phase, fill_missing)
        tasks = collect_tasks(inputs, loaded.plan, channel, dicom)
        results = _run(loaded, tasks, output, overwrite, form, display)
    failed = [result for result in results if result.status == "failed"]
    if len(results) == 1 and failed:
        raise LeansegError(failed[0].message)
    _summarise(results, failed, loaded, output, stages)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


class _Display:
    """A bar on a terminal, a line per case in a log; both on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("·"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._bar = self._progress.add_task("loading the model", total=None, detail="")
        self._n_cases = self._n_begun = self._n_done = 0

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, n_cases: int) -> None:
        """The number of cases is known."""
        self._n_cases = n_cases
        self._progress.update(self._bar, total=n_cases, completed=0)

    def on_case(self, name: str) -> None:
        """A case begins."""
        # The result of the last one may still be on its way.
        self._n_begun += 1
        counted = f"{self._n_begun}/{self._n_cases} {name}"
        self._progress.update(
            self._bar, completed=self._n_begun - 1, description=counted, detail="reading"
        )

    def on_slices(self, done: int, total: int) -> None:
        """A batch of slices is done."""
        detail = f"slice {done}/{total}" if done < total else "writing"
        share = self._n_begun - 1 + done / total
        self._progress.update(self._bar, completed=share, detail=detail)

    def on_result(self, result: CaseResult) -> None:
        """A case is over."""
        self._n_done += 1
        if self._n_cases == 1 or (self._console.is_terminal and result.status != "failed"):
            # The bar, or the summary, says it all.
            return
        what = {
            "done": f"{result.seconds:.1f} s, {result.peak_memory_mb:.0f} MB",
            "skipped": "was there already",
            "failed": f"failed: {result.message}",
        }[result.status]
        line = f"{self._n_done}/{self._n_cases} {result.name}: {what}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _run(
    model: Model,
    tasks: Sequence[PredictionTask],
    output: Path,
    overwrite: bool,
    form: str,
    display: _Display,
) -> list[CaseResult]:
    from leanseg.inference.batch import predict_all

    display.begin(len(tasks))
    return predict_all(
        model,
        tasks,
        output,
        overwrite=overwrite,
        form=form,
        on_case=display.on_case,
        on_slices=display.on_slices,
        on_result=display.on_result,
    )


def _summarise(
    results: Sequence[CaseResult],
    failed: Sequence[CaseResult],
    model: Model,
    output: Path,
    stages: bool,
) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        # A log has no width: nothing is cut.
        console = Console(highlight=False, width=_LOG_WIDTH)
    console.print(_table(results, model.labels, stages))
    if len(model.labels) > _MOST_COLUMNS:
        console.print(_label_table(results))
    for result in results:
        for note in result.notes:
            line = f"note: {result.name}: {note}"
            console.print(line, style="yellow", markup=False, soft_wrap=True)
    for result in failed:
        line = f"failed: {result.name}: {result.message}"
        console.print(line, style="red", markup=False, soft_wrap=True)
    engine = model.predictor.engine
    if engine.passes > 1:
        console.print(model.cost, markup=False, soft_wrap=True)
    console.print(
        f"{len(results) - len(failed)} of {len(results)} label maps are in {output} "
        f"({model.file.members[0].network.name} by {engine.name} in {engine.precision})",
        markup=False,
        soft_wrap=True,
    )


def _label_table(results: Sequence[CaseResult]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("ml", justify="right")
    for result in results:
        for label, volume_ml in result.volumes_ml.items():
            if volume_ml > 0:
                table.add_row(Text(result.name), Text(label), f"{volume_ml:.1f}")
    return table


def _table(results: Sequence[CaseResult], labels: dict[str, int], stages: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column("status")
    table.add_column("seconds", justify="right")
    table.add_column("peak MB", justify="right")
    shown = labels if len(labels) <= _MOST_COLUMNS else {}
    for name in shown:
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
            *(f"{result.volumes_ml[n]:.1f}" if result.volumes_ml else "" for n in shown),
            *(f"{result.stages[stage]:.2f}" if ran else "" for stage in names),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table
