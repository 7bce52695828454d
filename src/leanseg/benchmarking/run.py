"""A whole benchmark: models, scan and other tools in, one record out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leanseg.benchmarking.against import compare_masks, prepare, run_rivals
from leanseg.benchmarking.cost import ModelFacts, model_facts
from leanseg.benchmarking.machine import PACKAGES, describe_machine
from leanseg.benchmarking.measure import Outcome, Settings, candidates, measure
from leanseg.benchmarking.processes import pinned_cores
from leanseg.benchmarking.rivals import TOOLS, Choice, Rival
from leanseg.benchmarking.scans import phantom_scan
from leanseg.datasets import load_case
from leanseg.errors import DatasetError, LeansegError, RecipeError
from leanseg.inference.inputs import collect_tasks
from leanseg.modelfile import read_model
from leanseg.volumes import Volume, write_volume


@dataclass(frozen=True)
class Watcher:
    """What is called while a benchmark runs.

    Attributes:
        on_notice: With what begins, where it takes a while.
        on_run: With a candidate after each of its runs, and the run's number from 0.
        on_tile: With another tool's setting, its tiles that are done, and all of them.
    """

    on_notice: Callable[[str], None] = lambda text: None
    on_run: Callable[[Outcome, int], None] = lambda outcome, number: None
    on_tile: Callable[[str, int, int], None] = lambda setting, done, total: None


def run_benchmark(
    models: Sequence[Path],
    *,
    scan: Path | None = None,
    shape: tuple[int, int, int] = (512, 512, 150),
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    settings: Settings | None = None,
    against: Choice | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Measure models and, as a choice, other tools on one scan.

    Args:
        models: Model files.
        scan: A scan; None takes a phantom.
        shape: Of the phantom.
        engines: Names; empty takes all, or beside other tools "auto".
        precisions: Names; empty takes all, or beside other tools "f32".
        settings: Repeats, threads.
        against: Other tools; then `models` is one.
        watcher: Called while it runs.

    Returns:
        The record, as JSON has it: "format", "version", "machine", "scan", "settings", "models",
        "results" and "against" (`ModelFacts.as_dict`, `Outcome.as_dict`, `Rival.as_dict`).

    Raises:
        LeansegError: If a model or scan cannot be read, a name is not known, or nothing could be
            measured.
    """
    settings, watcher = settings or Settings(), watcher or Watcher()
    pinned_cores(settings.threads)
    if against is not None:
        if len(models) != 1:
            msg = f"{len(models)} models against other tools; give one"
            raise RecipeError(msg)
        engines, precisions = engines or ["auto"], precisions or ["f32"]
    outcomes = candidates(models, engines, precisions)
    facts = [model_facts(path) for path in models]
    machine = describe_machine((*PACKAGES, *(TOOLS[name] for name in _tools(against))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place, volume, described = _scan(scan, shape, facts, folder, watcher)
        rivals: list[Rival] = []
        if against is not None:
            rivals = prepare(against, facts[0], volume, folder, settings, watcher.on_notice)
        del volume
        _measure(outcomes, place, folder, settings, rivals, against, watcher)
    _require_one(outcomes)
    return {
        "format": "leanseg-benchmark",
        "version": 1,
        "machine": machine,
        "scan": described,
        "settings": {
            "repeats": settings.repeats,
            "threads": settings.threads,
            "against_repeats": None if against is None else against.repeats,
        },
        "models": [each.as_dict() for each in facts],
        "results": [outcome.as_dict(described["shape"][2]) for outcome in outcomes],
        "against": [rival.as_dict(outcomes) for rival in rivals],
    }


def _tools(against: Choice | None) -> tuple[str, ...]:
    return () if against is None else against.tools


def _scan(
    path: Path | None,
    shape: tuple[int, int, int],
    facts: Sequence[ModelFacts],
    folder: Path,
    watcher: Watcher,
) -> tuple[Path, Volume, dict[str, Any]]:
    """Where the scan is, the scan, and what the record says of it."""
    if path is None:
        channels = {each.channels for each in facts}
        if len(channels) > 1:
            msg = "the models have different numbers of channels; benchmark them one by one"
            raise RecipeError(msg)
        watcher.on_notice("a phantom is made")
        volume = phantom_scan(shape, channels.pop())
        path, kind = folder / "phantom.nii.gz", "phantom"
        write_volume(path, volume)
    else:
        kind = str(path)
        tasks = collect_tasks([path], read_model(Path(facts[0].file)).plan)
        if len(tasks) != 1:
            msg = f"{path}: holds {len(tasks)} scans; give one of them"
            raise DatasetError(msg)
        volume, _ = load_case(replace(tasks[0].case, label_parts=()))
    megabytes = path.stat().st_size / 1e6 if path.is_file() else None
    described = {
        "source": kind,
        "shape": list(volume.shape),
        "channels": volume.n_channels,
        "spacing_mm": list(volume.spacing_mm),
        "file_mb": megabytes,
    }
    return path, volume, described


def _measure(
    outcomes: Sequence[Outcome],
    scan: Path,
    folder: Path,
    settings: Settings,
    rivals: Sequence[Rival],
    against: Choice | None,
    watcher: Watcher,
) -> None:
    def alongside(number: int) -> None:
        if against is not None and number < against.repeats:
            run_rivals(rivals, number, folder, settings, watcher.on_tile)

    references = measure(outcomes, scan, settings, folder, watcher.on_run, alongside)
    for number in range(settings.repeats, 0 if against is None else against.repeats):
        alongside(number)
    compare_masks(rivals, references.get(outcomes[0].model))


def _require_one(outcomes: Sequence[Outcome]) -> None:
    """If nothing ran at all, the first reason is the user's answer."""
    if any(outcome.status == "measured" for outcome in outcomes):
        return
    first = next((o for o in outcomes if o.status == "failed"), outcomes[0])
    raise LeansegError(first.message)
