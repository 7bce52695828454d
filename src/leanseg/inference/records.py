"""What became of scans, and the records in a folder of results that tell which model made which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from leanseg import __version__
from leanseg.errors import LeansegError
from leanseg.files import read_parsed, write_json
from leanseg.inference.inputs import PredictionTask
from leanseg.inference.model import Model
from leanseg.inference.review import Review
from leanseg.scratch import held

RECORDS_FILE = "predictions.json"


@dataclass(frozen=True)
class CaseResult:
    """What became of one scan.

    Attributes:
        name: The case.
        output: The label map's file.
        status: "done", "skipped" (it was there already) or "failed".
        message: Why it failed.
        seconds: Wall clock of reading, predicting and writing it; in a folder of scans these
            overlap with those of its neighbours.
        stages: Seconds per stage.
        peak_memory_mb: Peak resident memory while it ran.
        volumes_ml: Volume of every label.
        slices_skipped: Slices for which the network did not run.
        notes: What the user should know about this scan.
        confidence: For each label what the network itself expects its Dice to be.
        review: The verdict on it, where that was asked for.
    """

    name: str
    output: Path
    status: str
    message: str = ""
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    volumes_ml: dict[str, float] = field(default_factory=dict)
    slices_skipped: int = 0
    notes: tuple[str, ...] = ()
    confidence: Mapping[str, float | None] = field(default_factory=dict)
    review: Review | None = None


@dataclass
class Records:
    """Which model made which result in a folder, so that none is taken for another's."""

    path: Path
    entries: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, folder: Path) -> Records:
        """The records of an output folder; empty where there are none."""
        return cls(folder / RECORDS_FILE, _read_entries(folder / RECORDS_FILE))

    def add(self, result: CaseResult, written: Path, signature: dict[str, Any]) -> None:
        """Note a result and write the file.

        Args:
            result: What is known of it.
            written: The label map, which only then takes its name: without the right SHA-256 a
                file is not the one that the record is of, whenever the process was killed.
            signature: What it was made from.
        """
        # Reviews are in a file of their own: their thresholds may change.
        known = asdict(replace(result, review=None)).items()
        entry = {key: value for key, value in known if key not in ("output", "review")}
        entry |= {"output_sha256": file_sha256(written), **signature}
        # Other processes may put results into the same folder.
        with held(self.path.with_name(f".{self.path.name}.lock")):
            self.entries = _read_entries(self.path)
            self.entries[record_name(result.output, result.name)] = entry
            write_json(self.path, {"format": "leanseg-predictions", "cases": self.entries})


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_name(path: Path, case: str) -> str:
    """What a result is called in the records: its case; its file if it is not NIfTI."""
    return case if path.name == f"{case}.nii.gz" else path.name


def _read_entries(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    return read_parsed(path, lambda text: dict(json.loads(text)["cases"]), "move it away")


def scan_signature(task: PredictionTask) -> dict[str, Any]:
    """Which files a result is of, as they are now; asked before they are read."""
    files = []
    for source in task.case.images:
        for file in source.files():
            if file.is_file():
                status = file.stat()
                files.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    indices = task.channel_indices
    return {
        "files": files,
        "sources": [source.to_json() for source in task.case.images],
        "channel_indices": None if indices is None else list(indices),
    }


def model_signature(model: Model) -> dict[str, Any]:
    """Which model a result is of, and what of its settings changes results."""
    return {
        "model_weights_sha256": model.file.weights_sha256,
        "plan": model.plan.model_dump(mode="json"),
        "precision": model.precision,
        "tta": model.tta,
    }


def how_it_ran(model: Model) -> dict[str, Any]:
    """What a record says besides; not part of the signature."""
    engine = model.engine
    return {
        "engine": engine.name,
        "device": engine.device,
        "passes": engine.passes,
        "leanseg": __version__,
    }


def kept_result(name: str, path: Path, records: Records, signature: dict[str, Any]) -> CaseResult:
    """A result that is there already.

    Raises:
        LeansegError: If it is not from this model and scan, or was changed since.
    """
    entry = records.entries.get(record_name(path, name))
    if entry is not None and "output_sha256" in entry:
        signature = {**signature, "output_sha256": file_sha256(path)}
    if entry is None or any(entry.get(key) != value for key, value in signature.items()):
        raise LeansegError(
            f"{path}: already exists, but not from this model and scan; "
            "give --overwrite to replace it, or another folder"
        )
    return CaseResult(name, path, "skipped", volumes_ml=entry["volumes_ml"])
