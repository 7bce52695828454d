"""Many scans, one after another: a bad one is reported and does not stop the others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg import __version__
from leanseg.datasets import load_case
from leanseg.errors import LeansegError
from leanseg.inference.engines.tta import NONE
from leanseg.inference.formats import OutputFormat, Writer, output_format
from leanseg.inference.inputs import PredictionTask
from leanseg.inference.memory import peak_memory_mb, reset_peak
from leanseg.inference.model import Model
from leanseg.volumes.archive import archive_of
from leanseg.volumes.atomic import written_whole

RECORDS_FILE = "predictions.json"


@dataclass(frozen=True)
class CaseResult:
    """What became of one scan.

    Attributes:
        name: The case.
        output: The label map's file.
        status: "done", "skipped" (it was there already) or "failed".
        message: Why it failed.
        seconds: Wall clock, reading and writing included.
        stages: Seconds per stage.
        peak_memory_mb: Peak resident memory while it ran.
        volumes_ml: Volume of every label.
    """

    name: str
    output: Path
    status: str
    message: str = ""
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    volumes_ml: dict[str, float] = field(default_factory=dict)


@dataclass
class Records:
    """Which model made which result in a folder, so that none is taken for another's."""

    path: Path
    entries: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, folder: Path) -> Records:
        """The records of an output folder; empty where there are none."""
        return cls(folder / RECORDS_FILE, _read_entries(folder / RECORDS_FILE))

    def add(self, result: CaseResult, signature: dict[str, Any]) -> None:
        """Note a result and write the file."""
        # Read again: another process may have put results into the same folder meanwhile.
        self.entries = _read_entries(self.path)
        entry = {key: value for key, value in asdict(result).items() if key != "output"}
        self.entries[record_name(result.output, result.name)] = {**entry, **signature}
        text = json.dumps({"format": "leanseg-predictions", "cases": self.entries}, indent=2)
        with written_whole(self.path) as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")


def record_name(path: Path, case: str) -> str:
    """What a result is called in the records: its case; its file if it is not NIfTI."""
    return case if path.name == f"{case}.nii.gz" else path.name


def _read_entries(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["cases"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, OSError) as error:
        msg = f"{path}: is not readable as leanseg's record of results; move it away"
        raise LeansegError(msg) from error


def predict_all(
    model: Model,
    tasks: Sequence[PredictionTask],
    output: Path,
    *,
    overwrite: bool = False,
    form: str = "nifti",
    on_case: Callable[[str], None] = lambda name: None,
    on_slices: Callable[[int, int], None] = lambda done, total: None,
    on_result: Callable[[CaseResult], None] = lambda result: None,
) -> list[CaseResult]:
    """Predict scans into a folder, one label map a scan.

    A result that is already there from the same model and scan is kept; one that something
    else made is replaced only with `overwrite`.

    Args:
        model: A loaded model.
        tasks: From `collect_tasks`.
        output: The folder.
        overwrite: Predict anew whatever is there.
        form: How label maps are stored, one of `leanseg.inference.formats.FORMATS`.
        on_case: Called with a case's name before it starts.
        on_slices: Called with (slices done, slices in all) of the present case.
        on_result: Called with each result.

    Returns:
        One result a task, in the same order.

    Raises:
        LeansegError: If the folder cannot be written to, or there is no such format.
    """
    chosen = output_format(form)
    created = _make_folder(output)
    records = Records.of(output)
    results: list[CaseResult] = []
    try:
        for task in tasks:
            on_case(task.case.name)
            path = output / f"{task.case.name}{chosen.suffix}"
            try:
                result = _result(model, task, path, chosen, records, overwrite, on_slices)
            except LeansegError as error:
                result = CaseResult(task.case.name, path, "failed", str(error))
            except (OSError, MemoryError) as error:
                reason = getattr(error, "strerror", None) or "it needs more memory than there is"
                message = f"{task.case.images[0].path}: cannot be predicted ({reason})"
                result = CaseResult(task.case.name, path, "failed", message)
            results.append(result)
            on_result(result)
    finally:
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


def _result(
    model: Model,
    task: PredictionTask,
    path: Path,
    form: OutputFormat,
    records: Records,
    overwrite: bool,
    on_slices: Callable[[int, int], None],
) -> CaseResult:
    signature = _signature(model, task)
    if path.exists() and not overwrite:
        return _kept(task.case.name, path, records, signature)
    result = _predict_one(model, task, path, form.prepare(task.case), on_slices)
    try:
        records.add(result, {**signature, **_how(model)})
    except BaseException:
        # A label map that no record vouches for would be taken for somebody else's.
        path.unlink(missing_ok=True)
        raise
    return result


def _signature(model: Model, task: PredictionTask) -> dict[str, Any]:
    files = []
    for source in task.case.images:
        stored = archive_of(source.path) or source.path
        members = sorted(stored.rglob("*")) if stored.is_dir() else [stored]
        for file in members:
            if file.is_file():
                status = file.stat()
                files.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    indices = task.channel_indices
    return {
        "model_weights_sha256": model.manifest.weights_sha256,
        "plan": model.plan.model_dump(mode="json"),
        "tta": model.tta,
        "files": files,
        "sources": [source.to_json() for source in task.case.images],
        "channel_indices": None if indices is None else list(indices),
    }


def _how(model: Model) -> dict[str, Any]:
    """What a record says besides: not part of the signature, since "auto" may choose anew."""
    engine = model.predictor.engine
    return {
        "engine": engine.name,
        "precision": engine.precision,
        "passes": engine.passes,
        "leanseg": __version__,
    }


def _kept(name: str, path: Path, records: Records, signature: dict[str, Any]) -> CaseResult:
    entry = records.entries.get(record_name(path, name))
    if entry is not None:
        # Records of before there was test-time augmentation do not speak of it.
        entry = {"tta": NONE, **entry}
    if entry is None or any(entry.get(key) != value for key, value in signature.items()):
        msg = (
            f"{path}: is there already, but not from this model and scan; "
            "give --overwrite to replace it, or another folder"
        )
        raise LeansegError(msg)
    return CaseResult(name, path, "skipped", volumes_ml=entry["volumes_ml"])


def _voxels_per_class(labels: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    counts = np.zeros(n_classes, dtype=np.int64)
    # Slice by slice: numpy widens what it counts to 8 bytes a voxel.
    for k in range(labels.shape[2]):
        counts += np.bincount(labels[:, :, k].ravel(order="K"), minlength=n_classes)
    return counts


def _predict_one(
    model: Model,
    task: PredictionTask,
    path: Path,
    write: Writer,
    on_slices: Callable[[int, int], None],
) -> CaseResult:
    reset_peak()
    started = time.perf_counter()
    # The label plays no part: a case is predicted whether or not it has one.
    image, _ = load_case(replace(task.case, label_parts=()))
    read = time.perf_counter()
    prediction = model.predict_timed(image, task.channel_indices, on_slices)
    predicted = time.perf_counter()
    labels = prediction.labels
    write(path, labels, image, model.labels)
    finished = time.perf_counter()
    voxel_ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
    counts = _voxels_per_class(labels.array, len(model.labels) + 1)
    return CaseResult(
        name=task.case.name,
        output=path,
        status="done",
        seconds=finished - started,
        stages={
            "read": read - started,
            **vars(prediction.seconds),
            "write": finished - predicted,
        },
        peak_memory_mb=peak_memory_mb(),
        volumes_ml={
            name: float(counts[number]) * voxel_ml for name, number in model.labels.items()
        },
    )
