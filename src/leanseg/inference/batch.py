"""Many scans, one after another: a bad one is reported and does not stop the others.

While a scan is in the network, the next one is read and the last one written, so that the cores
are not left idle between scans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import load_case
from leanseg.errors import LeansegError
from leanseg.inference.formats import OutputFormat, Writer, output_format
from leanseg.inference.inputs import PredictionTask
from leanseg.inference.later import Later
from leanseg.inference.memory import peak_memory_mb, reset_peak
from leanseg.inference.model import Model
from leanseg.inference.records import (
    RECORDS_FILE,
    CaseResult,
    Records,
    how_it_ran,
    kept_result,
    model_signature,
    scan_signature,
)
from leanseg.volumes import Volume
from leanseg.volumes.atomic import written_whole

__all__ = ["RECORDS_FILE", "CaseResult", "predict_all"]

# Classes up to this number are counted one by one, which is faster than all of them at once.
_FEW_CLASSES = 32


def predict_all(
    model: Model,
    tasks: Sequence[PredictionTask],
    output: Path,
    *,
    overwrite: bool = False,
    form: str = "nifti",
    prefetch: bool = True,
    on_case: Callable[[str], None] = lambda name: None,
    on_slices: Callable[[int, int], None] = lambda done, total: None,
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
        prefetch: Whether the next scan is read, and the last result written, while one is in the
            network: one more scan and one more label map in memory.
        on_case: Called with a case's name before it starts.
        on_slices: Called with (slices done, slices in all) of the present case.
        on_result: Called with each result, in the order of the tasks.

    Returns:
        One result a task, in the same order.

    Raises:
        LeansegError: If the folder cannot be written to, or there is no such format.
    """
    chosen = output_format(form)
    created = _make_folder(output)
    folder = _Folder(model, output, chosen, Records.of(output), overwrite)
    results: list[CaseResult] = []

    if model.ceiling is not None:
        prefetch = prefetch and model.ceiling.may_prefetch([task.case for task in tasks], form)
    reading: Later[_Read] | None = None
    writing: Later[CaseResult] | None = None

    def end_writing() -> None:
        nonlocal writing
        if writing is not None:
            last, writing = writing, None
            results.append(last.result())
            on_result(results[-1])

    def progress(done: int, total: int) -> None:
        if writing is not None and writing.is_done:
            end_writing()
        on_slices(done, total)

    try:
        for index, task in enumerate(tasks):
            on_case(task.case.name)
            read = reading.result() if reading else folder.read(task)
            is_last = index + 1 == len(tasks)
            reading = None
            if prefetch and not is_last:
                reading = Later(partial(folder.read, tasks[index + 1]), may_be_dropped=True)
            predicted = folder.predict(read, progress)
            # The scan itself is not needed for writing.
            del read
            # Never more than one result on its way: a slow disk must not fill the memory.
            end_writing()
            writing = Later(partial(folder.write, predicted))
            del predicted
            if is_last or not prefetch:
                end_writing()
    finally:
        # After Ctrl-C, too, what was predicted completely is kept.
        end_writing()
        if created and not any(output.iterdir()):
            output.rmdir()
    return results


def _make_folder(folder: Path) -> bool:
    """Make the output folder; whether it is new."""
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Found out now rather than after minutes of prediction.
        with written_whole(folder / RECORDS_FILE):
            pass
    except FileExistsError as error:
        msg = f"{folder}: is a file, but results need a folder; give another name"
        raise LeansegError(msg) from error
    except OSError as error:
        msg = (
            f"{folder}: the folder cannot be made ({error.strerror}); "
            "choose one that you may write to"
        )
        raise LeansegError(msg) from error
    return created


@dataclass
class _Read:
    """A scan in memory, or why there is none.

    Attributes:
        task: What is to be predicted.
        path: Where the result goes.
        seconds: What reading took.
        known: The result, where nothing is left to do: kept from before, or failed.
        scan: The scan.
        write: Writes its result.
        signature: Of the files that were read.
    """

    task: PredictionTask
    path: Path
    seconds: float = 0.0
    known: CaseResult | None = None
    scan: Volume | None = None
    write: Writer | None = None
    signature: dict[str, Any] | None = None


@dataclass
class _Predicted:
    """A label map in memory and what is known of it so far."""

    result: CaseResult
    labels: Volume | None = None
    write: Writer | None = None
    signature: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Folder:
    """The three steps of a case; each may run in a thread of its own."""

    model: Model
    output: Path
    form: OutputFormat
    records: Records
    overwrite: bool

    def read(self, task: PredictionTask) -> _Read:
        """The scan, if there is anything to predict."""
        name = task.case.name
        path = self.output / f"{name}{self.form.suffix}"
        found = _Read(task, path)
        started = time.perf_counter()
        try:
            found.signature = scan_signature(task)
            if path.exists() and not self.overwrite:
                signature = {**model_signature(self.model), **found.signature}
                found.known = kept_result(name, path, self.records, signature)
                return found
            found.write = self.form.prepare(task.case)
            if self.model.ceiling is not None:
                self.model.ceiling.fit(task.case, self.form.name)
            # The label plays no part: a case is predicted whether or not it has one.
            found.scan, _ = load_case(replace(task.case, label_parts=()))
        except (LeansegError, OSError, MemoryError) as error:
            found.known = _failed(task, path, error)
        found.seconds = time.perf_counter() - started
        return found

    def predict(self, read: _Read, on_slices: Callable[[int, int], None]) -> _Predicted:
        """The label map of a scan; the scan is handed over and let go."""
        if read.known is not None or read.scan is None:
            assert read.known is not None
            return _Predicted(read.known)
        # Not a failure of this case: without the engine no case can be predicted.
        model, _ = self.model, self.model.predictor
        scan, read.scan = [read.scan], None
        reset_peak()
        started = time.perf_counter()
        try:
            prediction = model.predict_timed(scan.pop(), read.task.channel_indices, on_slices)
        except (LeansegError, OSError, MemoryError) as error:
            return _Predicted(_failed(read.task, read.path, error))
        seconds = time.perf_counter() - started
        result = CaseResult(
            name=read.task.case.name,
            output=read.path,
            status="done",
            seconds=read.seconds + seconds,
            stages={"read": read.seconds, **vars(prediction.seconds)},
            peak_memory_mb=peak_memory_mb(),
            slices_skipped=prediction.slices_skipped,
            notes=prediction.notes,
        )
        return _Predicted(result, prediction.labels, read.write, read.signature)

    def write(self, predicted: _Predicted) -> CaseResult:
        """The result in the folder and in its records."""
        result, labels = predicted.result, predicted.labels
        if labels is None or predicted.write is None or predicted.signature is None:
            return result
        started = time.perf_counter()
        try:
            # The label map has the scan's grid and header.
            predicted.write(result.output, labels, labels, self.model.labels)
            volumes_ml = _volumes_ml(labels, self.model.labels)
            seconds = time.perf_counter() - started
            result = replace(
                result,
                seconds=result.seconds + seconds,
                stages={**result.stages, "write": seconds},
                peak_memory_mb=max(result.peak_memory_mb, peak_memory_mb()),
                volumes_ml=volumes_ml,
            )
            self._record(result, predicted.signature)
        except (LeansegError, OSError, MemoryError) as error:
            return _failure(result.name, result.output, error, labels.path)
        return result

    def _record(self, result: CaseResult, signature: dict[str, Any]) -> None:
        try:
            entry = {**model_signature(self.model), **signature, **how_it_ran(self.model)}
            self.records.add(result, entry)
        except BaseException:
            # A label map that no record vouches for would be taken for somebody else's.
            result.output.unlink(missing_ok=True)
            raise


def _failed(task: PredictionTask, path: Path, error: Exception) -> CaseResult:
    return _failure(task.case.name, path, error, task.case.images[0].path)


def _failure(name: str, path: Path, error: Exception, scan: Path | None) -> CaseResult:
    if isinstance(error, LeansegError):
        return CaseResult(name, path, "failed", str(error))
    reason = getattr(error, "strerror", None) or "it needs more memory than there is"
    return CaseResult(name, path, "failed", f"{scan}: cannot be predicted ({reason})")


def _volumes_ml(labels: Volume, names: dict[str, int]) -> dict[str, float]:
    voxel_ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
    counts = _voxels_per_class(labels.array, len(names) + 1)
    return {name: float(counts[number]) * voxel_ml for name, number in names.items()}


def _voxels_per_class(labels: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    counts = np.zeros(n_classes, dtype=np.int64)
    for k in range(labels.shape[2]):
        section = labels[:, :, k]
        highest = int(section.max())
        if highest > _FEW_CLASSES:
            # Slice by slice: numpy widens what it counts to 8 bytes a voxel.
            counts += np.bincount(section.ravel(order="K"), minlength=n_classes)
            continue
        for number in range(1, highest + 1):
            counts[number] += np.count_nonzero(section == number)
    return counts
