"""Measurements of models, engines and precisions in turns, and what comes out of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leanseg.benchmarking.processes import ChildError, ChildRun, run_child
from leanseg.errors import LeansegError, RecipeError
from leanseg.inference.engines.base import ENGINES, PRECISIONS, check_names

_CHILD = "leanseg.benchmarking.engine_child"
# What an error of the child's means for the table.
_STATUS = {
    "MissingDependencyError": "not installed",
    "RecipeError": "not available",
    "ModelFileError": "not available",
}


@dataclass(frozen=True)
class Settings:
    """How a benchmark runs.

    Attributes:
        repeats: Runs of each candidate.
        threads: Threads, and cores that each run is pinned to.
        allow_imports: As `leanseg.load_model`.
    """

    repeats: int = 5
    threads: int = 2
    allow_imports: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1:
            msg = f"repeats is {self.repeats}; choose 1 or more"
            raise RecipeError(msg)


@dataclass
class Outcome:
    """What became of a model, engine and precision.

    Attributes:
        model: The model file.
        engine: As asked for.
        precision: As asked for.
        status: "measured", "not installed", "not available" (the
            processor or the model file lacks it) or "failed".
        message: Why it was not measured.
        chosen: Engine and precision that "auto" stood for.
        runs: One entry a run: seconds of "process" (whole, start and end included), "load"
            (start, imports and the model), "first" (until the first slices were done), "warm"
            (the scan in memory, again in the same process) and "warm_cpu" (processor time);
            "peak_memory_mb"; "stages" and "warm_stages".
        equal_voxels: Share of voxels with the label of the float32 reference.
        reference: Engine and precision of that; empty where there is none.
    """

    model: Path
    engine: str
    precision: str
    status: str = "measured"
    message: str = ""
    chosen: tuple[str, str] = ("", "")
    runs: list[dict[str, Any]] = field(default_factory=list)
    equal_voxels: float | None = None
    reference: str = ""
    mask: Path | None = None

    def spread(self, name: str) -> dict[str, float]:
        """Median, lowest and highest of the runs."""
        return spread([run[name] for run in self.runs])

    def as_dict(self, n_slices: int) -> dict[str, Any]:
        """As JSON has it; seconds and MB as median, lowest and highest."""
        facts: dict[str, Any] = {
            "model": str(self.model),
            "engine": self.engine,
            "precision": self.precision,
            "status": self.status,
            "message": self.message,
        }
        if self.status != "measured":
            return facts
        warm = self.spread("warm")
        return facts | {
            "chosen": {"engine": self.chosen[0], "precision": self.chosen[1]},
            "latency_s": warm,
            "latency_cpu_s": self.spread("warm_cpu"),
            "ms_per_slice": 1000 * warm["median"] / n_slices,
            "whole_process_s": self.spread("process"),
            "load_s": self.spread("load"),
            "first_slices_s": self.spread("first"),
            "peak_memory_mb": self.spread("peak_memory_mb"),
            "equal_voxels": self.equal_voxels,
            "reference": self.reference,
            "runs": self.runs,
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def candidates(
    models: Sequence[Path], engines: Sequence[str] = (), precisions: Sequence[str] = ()
) -> list[Outcome]:
    """Every model with every engine in every precision; by default all.

    Raises:
        RecipeError: If an engine or precision is not known.
    """
    for name in engines:
        check_names(name, "f32")
    for name in precisions:
        check_names("auto", name)
    names = dict.fromkeys(engines or ENGINES)
    kinds = dict.fromkeys(precisions or PRECISIONS)
    return [Outcome(model, name, kind) for model in models for name in names for kind in kinds]


def measure(
    outcomes: Sequence[Outcome],
    scan: Path,
    settings: Settings,
    folder: Path,
    on_run: Callable[[Outcome, int], None] = lambda outcome, number: None,
    alongside: Callable[[int], None] = lambda number: None,
) -> dict[Path, Outcome]:
    """Run the candidates in turns, each run a process of its own, and compare their label maps.

    What else the machine does falls on all alike. A candidate that cannot run leaves the turns.

    Args:
        outcomes: From `candidates`; filled in here.
        scan: The scan's file or folder.
        settings: How.
        folder: For the label maps.
        on_run: Called after each run with its number, from 0.
        alongside: Called at the end of each turn with its number, for what else takes turns.

    Returns:
        Each model's float32 reference, where there is one.
    """
    for number in range(settings.repeats):
        for index, outcome in enumerate(outcomes):
            if outcome.status == "measured":
                _run(outcome, scan, settings, folder / f"{index}-{number}")
                on_run(outcome, number)
        alongside(number)
    references = {}
    for number, model in enumerate(dict.fromkeys(outcome.model for outcome in outcomes)):
        measured = [o for o in outcomes if o.model == model and o.status == "measured"]
        reference = _reference(measured, scan, settings, folder / f"reference-{number}")
        if reference is not None:
            references[model] = reference
            _compare(measured, reference)
    return references


def _run(outcome: Outcome, scan: Path, settings: Settings, output: Path, warm: bool = True) -> None:
    job = {
        "model": str(outcome.model),
        "scan": str(scan),
        "output": str(output),
        "engine": outcome.engine,
        "precision": outcome.precision,
        "allow_imports": settings.allow_imports,
        "warm": warm,
    }
    try:
        run = run_child(_CHILD, job, threads=settings.threads)
    except ChildError as error:
        outcome.status, outcome.message = "failed", str(error)
        return
    if run.refusal is not None:
        kind, outcome.message = run.refusal
        outcome.status = _STATUS.get(kind, "failed")
        return
    loaded, written = run.events["loaded"], run.events["written"]
    outcome.chosen = loaded["engine"], loaded["precision"]
    outcome.mask = outcome.mask or Path(written["file"])
    if warm:
        outcome.runs.append(_figures(run))


def _figures(run: ChildRun) -> dict[str, Any]:
    written, warm = run.events["written"], run.events["warm"]
    # The second prediction is not part of the whole process; ending it is.
    process = run.seconds - (run.at["warm"] - run.at["written"])
    return {
        "process": process,
        "load": run.at["loaded"],
        "first": run.at.get("first slices", run.at["written"]),
        "warm": warm["seconds"],
        "warm_cpu": warm["cpu_seconds"],
        "peak_memory_mb": written["peak_memory_mb"],
        "stages": written["stages"],
        "warm_stages": warm["stages"],
    }


def _compare(measured: Sequence[Outcome], reference: Outcome) -> None:
    """Fill in the agreement with a model's reference."""
    for outcome in measured:
        if outcome.mask is not None and reference.mask is not None:
            outcome.equal_voxels = equal_share(outcome.mask, reference.mask)
            outcome.reference = " ".join(reference.chosen)


def _reference(
    measured: Sequence[Outcome], scan: Path, settings: Settings, folder: Path
) -> Outcome | None:
    """PyTorch in float32 where it is installed, else the first engine that ran in float32."""
    if not measured:
        return None
    found = {outcome.chosen: outcome for outcome in measured}
    torch = ("torch", "f32")
    if torch not in found and ENGINES["torch"].is_installed:
        extra = Outcome(measured[0].model, *torch)
        _run(extra, scan, settings, folder, warm=False)
        if extra.status == "measured":
            found[torch] = extra
    return next(
        (found[name, "f32"] for name in ("torch", *ENGINES) if (name, "f32") in found), None
    )


def equal_share(first: Path, second: Path) -> float:
    """Share of the voxels of two label maps that have the same label.

    Raises:
        LeansegError: If the shapes differ.
    """
    import numpy as np

    from leanseg.volumes import read_volume

    arrays = read_volume(first).array, read_volume(second).array
    if arrays[0].shape != arrays[1].shape:
        msg = f"{first}: has shape {arrays[0].shape}, {second} has {arrays[1].shape}"
        raise LeansegError(msg)
    return float(np.mean(arrays[0] == arrays[1]))
