"""Precision "auto": the fastest that changes next to no label, measured once per machine."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg import __version__
from leanseg.inference.labels import network_labels
from leanseg.modelfile import ModelFile, weights_sha256
from leanseg.volumes.atomic import written_whole

# One voxel in 10,000 may get another label than in float32, not more.
MOST_CHANGED = 1e-4
# Reduced precision has to earn its place.
LEAST_GAIN = 0.9
_REPEATS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A precision, and in words what spoke for or against the others."""

    precision: str
    why: str = ""


@dataclass(frozen=True)
class Trial:
    """What a precision did on the model's reference input.

    Attributes:
        seconds: Fastest of some runs over the reference input.
        changed: Share of the voxels whose label is not float32's; None where float32 finds
            background alone, on which every precision agrees and none has proved anything.
    """

    seconds: float
    changed: float | None


def choose_precision(
    model: ModelFile, name: str, factory: Any, threads: int | None, options: dict[str, Any]
) -> Choice:
    """The fastest precision that leaves all but one label in 10,000 alone, on this machine.

    Args:
        model: The model, of which the reference input is used; without one it is float32.
        name: The engine's name.
        factory: The engine's class; where it cannot tell its `precisions`, it decides itself.
        threads: As for the engine.
        options: As for the engine.
    """
    if not hasattr(factory, "precisions"):
        return Choice("auto")
    reference = None if model.exported is None else model.exported.reference
    candidates = factory.precisions(model)
    if len(candidates) == 1:
        return Choice("f32")
    if reference is None:
        return Choice("f32", "the model file holds no reference input to compare precisions on")
    key = _key(model, name, factory.version(), threads, options)
    trials = _recall(key)
    if trials is None or set(trials) != set(candidates):
        trials = _measured(model, factory, candidates, threads, options, reference)
        _remember(key, trials)
    chosen = best(trials)
    return Choice(chosen, explained(chosen, trials))


def best(trials: dict[str, Trial]) -> str:
    """The fastest of those that change few enough labels; float32 unless one clearly gains."""
    exact = trials["f32"]
    good = {
        name: trial
        for name, trial in trials.items()
        if trial.changed is not None
        and trial.changed <= MOST_CHANGED
        and trial.seconds < LEAST_GAIN * exact.seconds
    }
    return min(good, key=lambda name: good[name].seconds, default="f32")


def explained(chosen: str, trials: dict[str, Trial]) -> str:
    """What the trials showed, for whoever wonders about the choice."""
    exact = trials["f32"]
    if all(trial.changed is None for trial in trials.values()):
        return "the model finds nothing in its reference input, so precisions were not compared"
    parts = [
        f"{name} takes {100 * trial.seconds / exact.seconds:.0f} % of f32's time and changes "
        f"{1e4 * (trial.changed or 0.0):.1f} of 10,000 labels"
        for name, trial in trials.items()
        if name != "f32"
    ]
    allowed = "" if chosen != "f32" else f"; up to {1e4 * MOST_CHANGED:.0f} is allowed"
    return f"on the reference input {', '.join(parts)}{allowed}"


def _measured(
    model: ModelFile,
    factory: Any,
    candidates: tuple[str, ...],
    threads: int | None,
    options: dict[str, Any],
    reference: NDArray[np.float32],
) -> dict[str, Trial]:
    engines = {p: factory(model, p, threads, **options) for p in candidates}
    labels = {p: network_labels(engine.run(reference)) for p, engine in engines.items()}
    seconds = dict.fromkeys(candidates, float("inf"))
    for _ in range(_REPEATS):
        for precision, engine in engines.items():
            started = time.perf_counter()
            engine.run(reference)
            seconds[precision] = min(seconds[precision], time.perf_counter() - started)
    telling = bool(labels["f32"].any())
    return {
        p: Trial(seconds[p], float((labels[p] != labels["f32"]).mean()) if telling else None)
        for p in candidates
    }


def _key(
    model: ModelFile, name: str, version: str, threads: int | None, options: dict[str, Any]
) -> str:
    """What the choice depends on: model, engine, machine."""
    exported = model.exported
    assert exported is not None
    assert exported.reference is not None
    parts = [
        __version__,
        weights_sha256(model.weights),
        *(hashlib.sha256(part).hexdigest() for part in (exported.graph, exported.int8 or b"")),
        hashlib.sha256(exported.reference.tobytes()).hexdigest(),
        name,
        version,
        threads,
        options["lanes"],
        platform.machine(),
        _processor(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _processor() -> str:
    """The processor's name and instruction sets, where the system tells them."""
    wanted = ("model name", "flags")
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if line.startswith(wanted))
    return platform.processor()


def _folder() -> Path:
    from platformdirs import user_cache_path

    return Path(user_cache_path("leanseg", appauthor=False)) / "precision"


def _recall(key: str) -> dict[str, Trial] | None:
    """An earlier measurement; None where there is none that can be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        stored = json.loads((_folder() / f"{key}.json").read_text(encoding="utf-8"))
        return {str(name): Trial(**trial) for name, trial in stored.items()}
    return None


def _remember(key: str, trials: dict[str, Trial]) -> None:
    path = _folder() / f"{key}.json"
    text = json.dumps({name: asdict(trial) for name, trial in trials.items()}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as scratch:
            scratch.write_text(text + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        # A home that cannot be written to costs a measurement each time, and nothing else.
        _log.info("the choice of precision cannot be kept (%s)", error)
