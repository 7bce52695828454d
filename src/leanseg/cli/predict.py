"""`leanseg predict`: label maps for scans, in each scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.cli import options
from leanseg.cli.output import console, print_table, progress
from leanseg.cli.review import show_reviews
from leanseg.errors import LeansegError, RecipeError, told

if TYPE_CHECKING:
    from leanseg.inference.jobs import Preview
    from leanseg.inference.model import Model
    from leanseg.inference.records import CaseResult
    from leanseg.progress import Display

EXIT_SOME_FAILED = 1
_SOFT_TISSUE_HU = (-160.0, 240.0)


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
    labels: Annotated[
        str | None, typer.Option(help="Write only these labels: liver,spleen; all if not given.")
    ] = None,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Also draw each scan with its labels in three planes."),
    ] = False,
    review: Annotated[
        bool,
        typer.Option("--review", help="Say which results to trust (after `leanseg calibrate`)."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results.")
    ] = False,
    allow_imports: options.AllowImports = False,
    on: options.On = "here",
    address: options.Address = None,
) -> None:
    """Segment scans with a model file; results are in each scan's own grid.

    Existing results of the same model and scan are kept. One bad scan does not
    stop the others: it is named at the end, and the exit status is 1.
    """
    if review and labels is not None:
        raise RecipeError("--review looks at every label of the model; leave out --labels, or it")
    with progress() as display:
        from leanseg.inference.inputs import DicomChoice, collect_tasks
        from leanseg.inference.jobs import predict_all
        from leanseg.inference.model import load_model
        from leanseg.inference.review import Reviewer
        from leanseg.inference.review_folder import review_folder

        spread = options.on_ray(on, address)
        loading: dict[str, Any] = {
            "path": str(model),
            "engine": engine,
            "precision": precision,
            "device": device,
            # Scans side by side on one core each are faster than one after another on all.
            "threads": (threads or 1) if spread else threads,
            "tta": tta,
            "max_memory": max_memory,
            "allow_imports": allow_imports,
        }
        # Meanwhile the first scan is found and read; under a ceiling one after the other.
        loaded = load_model(**loading, in_background=max_memory is None)
        reviewer = Reviewer.of(loaded.file) if review else None
        wanted = None if labels is None else [name.strip() for name in labels.split(",")]
        dicom = DicomChoice(series, phase, fill_missing)
        tasks = collect_tasks(inputs, loaded.plan, channel, dicom, geometry)
        cases = _Cases(display, len(tasks))
        how: dict[str, Any] = {
            "overwrite": overwrite,
            "form": form,
            "save_probabilities": save_probabilities,
            "labels": wanted,
            "preview": _preview(loaded) if preview else None,
            "reviewer": reviewer,
            "on_result": cases.on_result,
        }
        if spread:
            from leanseg.executors import ray_tasks
            from leanseg.inference.spread import predict_spread

            with ray_tasks(address, alone=False) as executor:
                results = predict_spread(executor, loading, loaded, tasks, output, **how)
        else:
            results = predict_all(
                loaded,
                tasks,
                output,
                on_case=cases.on_case,
                on_progress=cases.on_progress,
                **how,
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


def _preview(model: Model) -> Preview:
    """Draws previews, of CT with the model's window or that of soft tissue."""
    from functools import partial

    from leanseg.plan import HounsfieldWindow
    from leanseg.reports.overlay import preview_png

    plan, window = model.plan, None
    seen = plan.networks[0].intensity.window
    if isinstance(seen, HounsfieldWindow):
        window = (seen.low, seen.high)
    elif plan.is_ct:
        window = _SOFT_TISSUE_HU
    return partial(preview_png, window=window)


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
        if self._n_done > self._n_begun:
            # Of scans on other machines it is told when they end.
            self._display.advance("scans", self._n_done, self._n_cases)
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
