"""A benchmark: models on one scan, engine by engine and precision by precision, in turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.benchmarking.facts import ModelFacts, model_facts
from leanseg.benchmarking.phantom import phantom_scan
from leanseg.errors import LeansegError, RecipeError
from leanseg.inference.engines.base import ENGINES, PRECISIONS, check_names
from leanseg.machine import Machine, this_machine, usable_cores
from leanseg.scratch import scratch_folder
from leanseg.volumes import Volume, read_volume, write_volume

_CHILD = "leanseg.benchmarking.child"
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        load_s: From its start until the model is ready.
        process_s: From its start until the label map is written, file to file.
        latency_s: The scan in memory, the model warm, to the label map in memory.
        latency_cpu_s: Processor time of that, which other programs lengthen less.
        peak_memory_mb: Resident memory up to the written label map, in MB (10^6 bytes).
    """

    load_s: float
    process_s: float
    latency_s: float
    latency_cpu_s: float
    peak_memory_mb: float


@dataclass
class Measurement:
    """A model with an engine in a precision.

    Attributes:
        model: The model file.
        engine: Its name; the one that ran, where "auto" was asked for.
        precision: Likewise.
        runs: One for each repeat; none where it could not run.
        message: Why it could not.
        equal_voxels: Share of the voxels with the label of the reference; None without one.
        reference: The float32 engine of that: PyTorch, or the first that was measured.
    """

    model: str
    engine: str
    precision: str
    runs: list[Run] = field(default_factory=list)
    message: str = ""
    equal_voxels: float | None = None
    reference: str = ""

    def spread(self, name: str) -> tuple[float, float, float]:
        """Median, lowest and highest of one of the figures of `Run`."""
        values = [getattr(run, name) for run in self.runs]
        return statistics.median(values), min(values), max(values)


@dataclass(frozen=True)
class Benchmark:
    """What was measured, where and on what.

    Attributes:
        machine: What it ran on.
        scan: The scan's file; "phantom" where there was none.
        shape: Of the scan, in voxels.
        threads: Threads of the engine, and cores that each process was pinned to.
        models: Size and work of each model.
        measurements: Every model with every engine in every precision.
    """

    machine: Machine
    scan: str
    shape: tuple[int, ...]
    threads: int
    models: tuple[ModelFacts, ...]
    measurements: tuple[Measurement, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"format": "leanseg-benchmark", "version": 2, **asdict(self)}


def benchmark(
    models: str | Path | Sequence[str | Path],
    scan: str | Path | None = None,
    *,
    shape: tuple[int, int, int] = (512, 512, 150),
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    threads: int | None = None,
    repeats: int = 5,
    allow_imports: bool = False,
    on_run: Callable[[Measurement], None] = lambda measurement: None,
) -> Benchmark:
    """Measure what models cost on this machine.

    Each run is a process of its own, pinned to its cores where the system can; models, engines
    and precisions take turns, so that what else the machine does falls on all alike.

    Args:
        models: Model files.
        scan: A scan; None takes a phantom.
        shape: Of the phantom.
        engines: Names; empty takes all.
        precisions: Names; empty takes all.
        threads: Threads of the engines; None takes as many as there are cores.
        repeats: Runs of each.
        allow_imports: As `leanseg.load_model`.
        on_run: Called after each run, and where something cannot run.

    Raises:
        LeansegError: If a model or the scan cannot be read, a name is not known, or nothing
            could be measured.

    Example:
        >>> how = {"engines": ["openvino"], "precisions": ["f32"], "repeats": 1}
        >>> cost = leanseg.benchmark("model.leanseg", "scan.nii.gz", **how)
        >>> cost.shape, cost.measurements[0].runs[0].latency_s > 0
        ((64, 64, 20), True)
    """
    paths = [Path(each) for each in ([models] if isinstance(models, str | Path) else models)]
    cores = _cores(threads)
    if repeats < 1:
        raise RecipeError(f"repeats is {repeats}; choose 1 or more")
    measurements = _candidates(paths, engines, precisions)
    facts = tuple(model_facts(path) for path in paths)
    machine = this_machine()
    with scratch_folder() as folder:
        place, volume = _scan(scan, shape, facts, folder)
        job = {"scan": str(place), "cores": cores, "allow_imports": allow_imports}
        _take_turns(measurements, job, repeats, folder, on_run)
    if not any(each.runs for each in measurements):
        raise LeansegError(measurements[0].message)
    name = "phantom" if scan is None else str(scan)
    return Benchmark(machine, name, volume.shape, len(cores), facts, tuple(measurements))


def _cores(threads: int | None) -> list[int]:
    cores = usable_cores()
    if threads is not None and not 1 <= threads <= len(cores):
        msg = f"threads is {threads}, but this process may use {len(cores)}; choose 1 to that"
        raise RecipeError(msg)
    return cores[:threads]


def _candidates(
    paths: Sequence[Path], engines: Sequence[str], precisions: Sequence[str]
) -> list[Measurement]:
    for name in engines:
        check_names(name, "f32")
    for name in precisions:
        check_names("auto", name)
    return [
        Measurement(str(path), name, kind)
        for path in paths
        for name in dict.fromkeys(engines or ENGINES)
        for kind in dict.fromkeys(precisions or PRECISIONS)
    ]


def _scan(
    path: str | Path | None, shape: tuple[int, int, int], facts: Sequence[ModelFacts], folder: Path
) -> tuple[Path, Volume]:
    """The scan's file and the scan; read here, so that a damaged one is told at once."""
    if path is not None:
        return Path(path), read_volume(path)
    channels = {each.channels for each in facts}
    if len(channels) > 1:
        msg = "the models have different numbers of channels; benchmark them one by one"
        raise RecipeError(msg)
    volume = phantom_scan(shape, channels.pop())
    write_volume(folder / "phantom.nii.gz", volume)
    return folder / "phantom.nii.gz", volume


def _take_turns(
    measurements: Sequence[Measurement],
    job: dict[str, Any],
    repeats: int,
    folder: Path,
    on_run: Callable[[Measurement], None],
) -> None:
    """Fill in runs and agreement; what cannot run leaves the turns."""
    masks = [folder / f"{number}.nii.gz" for number in range(len(measurements))]
    for _ in range(repeats):
        for each, mask in zip(measurements, masks, strict=True):
            if not each.message:
                _run(each, {**job, "mask": str(mask), "figures": str(folder / "figures.json")})
                on_run(each)
    for model in dict.fromkeys(each.model for each in measurements):
        pairs = zip(measurements, masks, strict=True)
        _compare([(each, mask) for each, mask in pairs if each.model == model and each.runs])


def _run(measurement: Measurement, job: dict[str, Any]) -> None:
    """One run in a process of its own."""
    names = ("model", "engine", "precision")
    job |= {name: getattr(measurement, name) for name in names} | {"started": time.time()}
    done = subprocess.run(
        [sys.executable, "-m", _CHILD],
        input=json.dumps(job),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        measurement.message = _why(done.returncode, done.stderr)
        return
    figures = json.loads(Path(job["figures"]).read_text(encoding="utf-8"))
    if "refusal" in figures:
        measurement.message = figures["refusal"]
        return
    measurement.engine, measurement.precision = figures.pop("engine"), figures.pop("precision")
    measurement.runs.append(Run(**figures))


def _why(status: int, errors: str) -> str:
    """Why a process ended early, by its last line."""
    if status == -9:
        return "it was killed from outside, most likely because the machine's memory was used up"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1][:_SHOWN_CHARACTERS] if lines else "nothing was said"
    return f"its process ended with status {status} ({last})"


def _compare(ran: Sequence[tuple[Measurement, Path]]) -> None:
    """Agreement of a model's label maps with the one of PyTorch, or of another float32."""
    exact = [(each, mask) for each, mask in ran if each.precision == "f32"]
    exact.sort(key=lambda pair: pair[0].engine != "torch")
    if not exact:
        return
    reference, path = exact[0]
    labels = read_volume(path).array
    for each, mask in ran:
        each.equal_voxels = float(np.mean(read_volume(mask).array == labels))
        each.reference = f"{reference.engine} f32"
