"""`leanseg predict`: label maps for scans, in each scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import console, print_table, progress
from leanseg.cli.review import show_reviews
from leanseg.errors import LeansegError, told

if TYPE_CHECKING:
    from leanseg.inference.model import Model
    from leanseg.inference.records import CaseResult
    from leanseg.progress import Display

EXIT_SOME_FAILED = 1


def command(
    model: options.Model,
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
    threads: options.Threads = None,
    tta: Annotated[
        str,
        typer.Option(help="Test-time augmentation: none, flips, shifts or flips,shifts; slower."),
    ] = "none",
    max_memory: Annotated[
        str | None,
        typer.Option(help="Ceiling on this process's memory, such as 1GB or 800MiB."),
    ] = None,
    channel: options.Channels = None,
    series: options.Series = None,
    phase: Annotated[
        int | None, typer.Option(min=1, help="Which phase of a DICOM series with several.")
    ] = None,
    fill_missing: Annotated[
        bool, typer.Option("--fill-missing", help="Interpolate missing DICOM slices.")
    ] = False,
    geometry: options.Geometry = "auto",
    save_probabilities: Annotated[
        bool,
        typer.Option("--save-probabilities", help="Also write each scan's class probabilities."),
    ] = False,
    review: Annotated[
        bool,
        typer.Option("--review", help="Say which results to trust (after `leanseg calibrate`)."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there already.")
    ] = False,
    allow_imports: options.AllowImports = False,
) -> None:
    """Segment scans with a model file; results lie in each scan's own grid.

    A result that is there already from the same model and scan is kept. One bad scan does not
    stop the others: it is named at the end, and the exit status is 1.
    """
    with progress() as display:
        from leanseg.inference.inputs import DicomChoice, collect_tasks
        from leanseg.inference.jobs import predict_all
        from leanseg.inference.model import load_model
        from leanseg.inference.review import Reviewer
        from leanseg.inference.review_folder import review_folder

        loaded = load_model(
            model,
            engine=engine,
            precision=precision,
            device=device,
            threads=threads,
            tta=tta,
            max_memory=max_memory,
            allow_imports=allow_imports,
            # Meanwhile the first scan is found and read; under a ceiling one after the other.
            in_background=max_memory is None,
        )
        reviewer = Reviewer.of(loaded.file) if review else None
        dicom = DicomChoice(series, phase, fill_missing)
        tasks = collect_tasks(inputs, loaded.plan, channel, dicom, geometry)
        cases = _Cases(display, len(tasks))
        results = predict_all(
            loaded,
            tasks,
            output,
            overwrite=overwrite,
            form=form,
            save_probabilities=save_probabilities,
            reviewer=reviewer,
            on_case=cases.on_case,
            on_progress=cases.on_progress,
            on_result=cases.on_result,
        )
    failed = [result for result in results if result.status == "failed"]
    if len(results) == 1 and failed:
        raise LeansegError(failed[0].message)
    _summarise(results, loaded, output)
    if reviewer is not None:
        # Those that were there already.
        kept = {result.name for result in results if result.status == "skipped"}
        again = [task for task in tasks if task.case.name in kept]
        reviews, missing = review_folder(reviewer, loaded.file, again, output)
        reviews |= {each.name: each.review for each in results if each.review is not None}
        show_reviews(reviews, missing, reviewer.record, output)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


class _Cases:
    """Tells of scans on their way: a bar on a terminal, a line per case in a log."""

    def __init__(self, display: Display, n_cases: int) -> None:
        self._display, self._n_cases = display, n_cases
        self._n_begun = self._n_done = 0
        self._name = ""
        display.begin("loading the model", n_cases)

    def on_case(self, name: str) -> None:
        """A case begins."""
        self._n_begun, self._name = self._n_begun + 1, name
        self.on_progress(0, 1)

    def on_progress(self, done: int, total: int) -> None:
        """A part of a case is done."""
        detail = "reading" if done == 0 else f"{done}/{total}" if done < total else "writing"
        what = f"{self._n_begun}/{self._n_cases} {self._name}"
        self._display.advance(what, self._n_begun - 1 + done / total, self._n_cases, detail)

    def on_result(self, result: CaseResult) -> None:
        """A case is over; by now the next one may have begun."""
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


def _summarise(results: Sequence[CaseResult], model: Model, output: Path) -> None:
    print_table([_row(result) for result in results], left=("case", "status", "found, in ml"))
    out = console()
    for result in results:
        for note in result.notes:
            out.print(told(f"note: {result.name}: {note}"), style="yellow", soft_wrap=True)
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        out.print(f"failed: {result.name}: {result.message}", style="red", soft_wrap=True)
    engine = model.engine
    if engine.passes > 1:
        out.print(model.cost, soft_wrap=True)
    how = f"{model.file.title} by {engine.name} in {engine.precision} on {engine.device}"
    n_done = len(results) - len(failed)
    out.print(f"{n_done} of {len(results)} label maps are in {output} ({how})", soft_wrap=True)


def _row(result: CaseResult) -> dict[str, str]:
    ran = result.status == "done"
    found = (f"{name} {ml:.1f}" for name, ml in result.volumes_ml.items() if ml > 0)
    return {
        "case": result.name,
        "status": result.status,
        "seconds": f"{result.seconds:.1f}" if ran else "",
        "peak MB": f"{result.peak_memory_mb:.0f}" if ran else "",
        "found, in ml": ", ".join(found),
    }
