"""`leanseg predict`: label maps for scans, in each scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.errors import LeansegError

if TYPE_CHECKING:
    from rich.table import Table

    from leanseg.inference.jobs import CaseResult
    from leanseg.inference.model import Model
    from leanseg.progress import Display

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
    precision: Annotated[
        str, typer.Option(help="f32; bf16 or f16: faster, a few labels change.")
    ] = "f32",
    device: Annotated[str, typer.Option(help="cpu; cuda, cuda:1 or mps through PyTorch.")] = "cpu",
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
    save_probabilities: Annotated[
        bool,
        typer.Option("--save-probabilities", help="Also write each scan's class probabilities."),
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
    from rich.console import Console

    from leanseg.progress import Display

    with Display(Console(stderr=True)) as display:
        from leanseg.inference.inputs import DicomChoice, collect_tasks
        from leanseg.inference.jobs import predict_all
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
        cases = _Cases(display, len(tasks))
        results = predict_all(
            loaded,
            tasks,
            output,
            overwrite=overwrite,
            form=form,
            save_probabilities=save_probabilities,
            on_case=cases.on_case,
            on_progress=cases.on_progress,
            on_result=cases.on_result,
        )
    failed = [result for result in results if result.status == "failed"]
    if len(results) == 1 and failed:
        raise LeansegError(failed[0].message)
    _summarise(results, failed, loaded, output, stages)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


class _Cases:
    """Tells of scans on their way: a bar on a terminal, a line per case in a log."""

    def __init__(self, display: Display, n_cases: int) -> None:
        self._display, self._n_cases = display, n_cases
        self._n_begun = self._n_done = 0
        self._counted = ""
        display.begin("loading the model", n_cases)

    def on_case(self, name: str) -> None:
        """A case begins."""
        # The result of the last one may still be on its way.
        self._n_begun += 1
        self._counted = f"{self._n_begun}/{self._n_cases} {name}"
        self._advance(0.0, "reading")

    def on_progress(self, done: int, total: int) -> None:
        """A part of a case is done."""
        self._advance(done / total, f"{done}/{total}" if done < total else "writing")

    def _advance(self, share: float, detail: str) -> None:
        self._display.advance(self._counted, self._n_begun - 1 + share, self._n_cases, detail)

    def on_result(self, result: CaseResult) -> None:
        """A case is over."""
        self._n_done += 1
        if self._n_cases == 1 or (self._display.is_live and result.status != "failed"):
            # The bar, or the summary, says it all.
            return
        what = {
            "done": f"{result.seconds:.1f} s, {result.peak_memory_mb:.0f} MB",
            "skipped": "was there already",
            "failed": f"failed: {result.message}",
        }[result.status]
        self._display.say(f"{self._n_done}/{self._n_cases} {result.name}: {what}")


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
    engine = model.engine
    if engine.passes > 1:
        console.print(model.cost, markup=False, soft_wrap=True)
    console.print(
        f"{len(results) - len(failed)} of {len(results)} label maps are in {output} "
        f"({model.manifest.network.name} by {engine.name} in {engine.precision} on {engine.device})",
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
