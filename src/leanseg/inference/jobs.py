"""Many scans, one after another: a bad one is reported and does not stop the others.

While a scan is in the network, the next one is read and the last one written, so that the cores
are not left idle between scans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.errors import LeansegError, RecipeError, told
from leanseg.files import require_outputs, written_whole
from leanseg.frames.view import Scan
from leanseg.inference.chosen import ChosenLabels
from leanseg.inference.facts import Look, voxels_per_class
from leanseg.inference.formats import OutputFormat, Writer, output_format
from leanseg.inference.inputs import PredictionTask, open_scan
from leanseg.inference.memory import peak_memory_mb, reset_peak
from leanseg.inference.model import Model
from leanseg.inference.pipeline import Prediction
from leanseg.inference.records import (
    RECORDS_FILE,
    CaseResult,
    Records,
    how_it_ran,
    kept_result,
    model_signature,
    scan_signature,
)
from leanseg.inference.review import Reviewer
from leanseg.inference.threads import later
from leanseg.volumes import Volume, write_volume

_PROBABILITIES_SUFFIX = ".probabilities.nii.gz"
_PREVIEW_SUFFIX = ".preview.png"
# Draws (scan of one channel, label map, names) as a PNG file.
Preview = Callable[[Volume, Volume, Mapping[str, Sequence[int]]], bytes]


def predict_all(
    model: Model,
    tasks: Sequence[PredictionTask],
    output: Path,
    *,
    overwrite: bool = False,
    form: str = "nifti",
    save_probabilities: bool = False,
    labels: Sequence[str] | None = None,
    preview: Preview | None = None,
    reviewer: Reviewer | None = None,
    on_case: Callable[[str], None] = lambda name: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_result: Callable[[CaseResult], None] = lambda result: None,
) -> list[CaseResult]:
    """Predict scans into a folder, one label map a scan.

    A result that is already there from the same model and scan is kept; one that something
    else made is replaced only with `overwrite`.

    Args:
        model: A loaded model; it may still be getting ready.
        tasks: From `collect_tasks`.
        output: The folder.
        overwrite: Predict anew whatever is there.
        form: How label maps are stored, one of `leanseg.inference.formats.FORMATS`.
        save_probabilities: Also write `CASE.probabilities.nii.gz`, (i, j, k, output) on the
            scan's grid: the label's, or of several labels the background's and each one's.
        labels: The labels to write, in any spelling; None for all.
        preview: Draws what is also written as `CASE.preview.png`, from the scan read once more.
        reviewer: Reviews the results that are made anew.
        on_case: Called with a case's name before it starts.
        on_progress: Called with (done, in all) of the present case.
        on_result: Called with each result, in the order of the tasks.

    Returns:
        One result a task, in the same order.

    Raises:
        LeansegError: If the folder cannot be written to, there is no such format or label, or
            previews are wanted under a ceiling on memory.
    """
    kept = ChosenLabels.of(model.label_values, labels)
    if preview is not None and model.has_ceiling:
        msg = "a preview reads the whole scan once more, which --max-memory does not count"
        raise RecipeError(f"{msg}; give one of the two")
    chosen = output_format(form)
    names = [f"{task.case.name}{chosen.suffix}" for task in tasks]
    if save_probabilities:
        names += [f"{task.case.name}{_PROBABILITIES_SUFFIX}" for task in tasks]
    if preview is not None:
        names += [f"{task.case.name}{_PREVIEW_SUFFIX}" for task in tasks]
    read = (file for task in tasks for source in task.case.images for file in source.files())
    require_outputs((output / name for name in (RECORDS_FILE, *names)), read, new_folders=True)
    results: list[CaseResult] = []
    reading: Future[_Opened] | None = None
    writing: Future[CaseResult] | None = None

    def end_writing() -> None:
        nonlocal writing
        if writing is not None:
            last, writing = writing, None
            results.append(last.result())
            on_result(results[-1])

    def progress(done: int, total: int) -> None:
        if writing is not None and writing.done():
            end_writing()
        on_progress(done, total)

    with _made_folder(output):
        records = Records.of(output)
        jobs = _Jobs(
            model, output, chosen, records, overwrite, save_probabilities, kept, preview, reviewer
        )
        try:
            for task, upcoming in zip(tasks, [*tasks[1:], None], strict=False):
                on_case(task.case.name)
                opened = reading.result() if reading else jobs.open(task)
                # Under a ceiling both scans' headers say whether both have room.
                following = jobs.open(upcoming) if upcoming and model.has_ceiling else None
                prefetch = jobs.prepare(opened, following)
                if not prefetch:
                    end_writing()
                reading = None
                if upcoming is not None:
                    ahead = partial(jobs.fetch, upcoming, following, prefetch)
                    reading = later(ahead, may_be_dropped=True)
                predicted = jobs.predict(jobs.read(opened), progress)
                # The scan itself is not needed for writing.
                del opened, following
                # Never more than one result on its way: a slow disk must not fill the memory.
                end_writing()
                writing = later(partial(jobs.write, predicted))
                del predicted
        finally:
            # After Ctrl-C, too, what was predicted completely is kept.
            end_writing()
    return results


@contextmanager
def _made_folder(folder: Path) -> Iterator[None]:
    """An output folder; a new one is removed if nothing came into it."""
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if created and not any(folder.iterdir()):
            folder.rmdir()


_FAILURES = (LeansegError, OSError, MemoryError)


@dataclass
class _Opened:
    """A case on its way, or why there is nothing to do.

    Attributes:
        task: What is to be predicted.
        path: Where the result goes.
        signature: Of the files that are read.
        known: The result, as far as it is known.
        scan: Its header, or all of it.
        streams: Whether it is read while it is predicted.
        write: Writes its result.
        look: What is kept of the scan for a review.
        prediction: The label map, until it is written.
        seconds: What reading and predicting took.
        look_s: What looking at it for a review took.
    """

    task: PredictionTask
    path: Path
    signature: dict[str, Any]
    known: CaseResult | None = None
    scan: Scan | None = None
    streams: bool = False
    write: Writer | None = None
    look: Look | None = None
    prediction: Prediction | None = None
    seconds: float = 0.0
    look_s: float = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Where a step fails, nothing more is to be done than to say why."""
        try:
            yield
        except _FAILURES as error:
            self.known, self.scan, self.prediction = self._failure(error), None, None

    @contextmanager
    def timed_step(self) -> Iterator[None]:
        """A step whose time counts."""
        began = time.perf_counter()
        with self.step():
            yield
        self.seconds += time.perf_counter() - began

    def _failure(self, error: Exception) -> CaseResult:
        message, scan = str(error), told(str(self.task.case.images[0].path))
        if not isinstance(error, LeansegError):
            reason = getattr(error, "strerror", None) or "it needs more memory than there is"
            message = f"{scan}: cannot be predicted ({reason})"
        elif "/" not in message.partition(": ")[0] and scan not in message:
            # What is wrong between a scan and a model names neither.
            message = f"{scan}: {message}"
        return CaseResult(self.task.case.name, self.path, "failed", message)


@dataclass(frozen=True)
class _Jobs:
    """The steps of a case; each may run in a thread of its own."""

    model: Model
    output: Path
    form: OutputFormat
    records: Records
    overwrite: bool
    save_probabilities: bool
    labels: ChosenLabels
    preview: Preview | None
    reviewer: Reviewer | None

    def open(self, task: PredictionTask) -> _Opened:
        """The scan's header, if there is anything to predict."""
        name = task.case.name
        opened = _Opened(task, self.output / f"{name}{self.form.suffix}", {})
        with opened.timed_step():
            opened.signature = scan_signature(task) | {"labels": self.labels.names}
            if opened.path.exists() and not self.overwrite:
                signature = {**model_signature(self.model), **opened.signature}
                opened.known = kept_result(name, opened.path, self.records, signature)
                return opened
            opened.write = self.form.prepare(task.case)
            opened.scan = open_scan(task.case)
            opened.streams = self.model.streams(opened.scan)
        return opened

    def prepare(self, opened: _Opened, following: _Opened | None) -> bool:
        """Choose how a scan is predicted; whether the next one may be read meanwhile."""
        if opened.scan is None:
            return False
        writing = self.form.memory_bytes(opened.scan, self.labels.values)
        upcoming = None if following is None else following.scan
        prefetch = False
        with opened.step():
            way = self.model.prepare(
                opened.scan, writing, upcoming, save_probabilities=self.save_probabilities
            )
            opened.streams, prefetch = way.streams, way.prefetch
        return prefetch

    def fetch(self, task: PredictionTask, opened: _Opened | None, voxels: bool) -> _Opened:
        """A scan made ready while another is in the network: all of it, or its header."""
        opened = opened or self.open(task)
        return self.read(opened) if voxels else opened

    def read(self, opened: _Opened) -> _Opened:
        """The scan's voxels, where they are not read while it is predicted."""
        if opened.scan is None or opened.streams:
            return opened
        with opened.timed_step():
            opened.scan = opened.scan.read()
        return opened

    def predict(self, opened: _Opened, on_progress: Callable[[int, int], None]) -> _Opened:
        """The label map of a scan; the scan is handed over and let go."""
        if opened.scan is None:
            return opened
        # Not a failure of this case: without the engine no case can be predicted.
        model, _ = self.model, self.model.pipeline
        notes, read_s = opened.scan.notes, opened.seconds
        scan, opened.scan = [opened.scan], None
        reset_peak()
        if self.reviewer is not None:
            with opened.timed_step():
                began = time.perf_counter()
                opened.look = self.reviewer.look(scan[0], opened.task.channel_indices)
                opened.look_s = time.perf_counter() - began
        with opened.timed_step():
            prediction = opened.prediction = model.predict_timed(
                scan.pop(),
                opened.task.channel_indices,
                on_progress,
                save_probabilities=self.save_probabilities,
            )
            self.labels.apply(prediction.labels.array)
            opened.known = CaseResult(
                name=opened.task.case.name,
                output=opened.path,
                status="done",
                stages={"read": read_s, **vars(prediction.seconds)},
                peak_memory_mb=peak_memory_mb(),
                slices_skipped=prediction.slices_skipped,
                notes=(*notes, *prediction.notes),
                confidence=prediction.confidence,
            )
        return opened

    def write(self, opened: _Opened) -> CaseResult:
        """The result in the folder and in its records."""
        result, prediction = opened.known, opened.prediction
        assert result is not None
        if prediction is None or opened.write is None:
            return result
        labels, began = prediction.labels, time.perf_counter()
        with opened.step(), written_whole(result.output) as scratch:
            if prediction.probabilities is not None:
                path = scratch.with_name(f"{result.name}{_PROBABILITIES_SUFFIX}")
                write_volume(path, prediction.probabilities)
            if self.preview is not None:
                path = scratch.with_name(f"{result.name}{_PREVIEW_SUFFIX}")
                path.write_bytes(self.preview(_seen(opened.task), labels, self.labels.values))
            opened.write(scratch, labels, self.labels.values)
            n_classes = len(self.model.label_values) + 1
            volumes_ml = _volumes_ml(labels, self.labels.values, n_classes)
            seconds = time.perf_counter() - began
            if self.reviewer is not None and opened.look is not None:
                began = time.perf_counter()
                review = self.reviewer.review(opened.look, labels, prediction.confidence)
                review_s = opened.look_s + time.perf_counter() - began
                result = replace(result, review=replace(review, seconds=review_s))
            opened.known = result = replace(
                result,
                seconds=opened.seconds + seconds,
                stages={**result.stages, "write": seconds},
                peak_memory_mb=max(result.peak_memory_mb, peak_memory_mb()),
                volumes_ml=volumes_ml,
            )
            signature = model_signature(self.model) | opened.signature
            self.records.add(result, scratch, signature | how_it_ran(self.model))
        return opened.known


def _seen(task: PredictionTask) -> Volume:
    """The scan again, of its channels the model's first."""
    scan = open_scan(task.case).read()
    if scan.array.ndim == 3:
        return scan
    return scan.with_array(scan.array[..., (task.channel_indices or (0,))[0]])


def _volumes_ml(
    labels: Volume, names: Mapping[str, Sequence[int]], n_classes: int
) -> dict[str, float]:
    voxel_ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
    counts = voxels_per_class(labels.array, n_classes)
    return {name: float(counts[list(own)].sum()) * voxel_ml for name, own in names.items()}
