"""A few steps of training on this machine, on noise: time and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from leanseg.frames import CachedSource, PreparedCase
from leanseg.inference import Pipeline
from leanseg.inference.engines.torch_engine import TorchEngine
from leanseg.inference.memory import peak_memory_mb, reset_peak
from leanseg.plan import Plan
from leanseg.runtime import return_freed_memory
from leanseg.training.checkpoint import TrainingState
from leanseg.training.monitor import look
from leanseg.training.recipe import Recipe
from leanseg.training.trainer import Trainer
from leanseg.volumes import Box

_LEAST_STEPS, _MOST_STEPS, _ENOUGH_S = 3, 12, 2.0


@dataclass(frozen=True)
class Measured:
    """What one step and one prediction take here.

    Attributes:
        precision: The faster one.
        step_s: Of a step of training, by the clock.
        step_cpu_s: In processor seconds.
        patch_s: Of the prediction of one patch.
        peak_bytes: The most memory of this process meanwhile.
        parameters: Of the network.
    """

    precision: str
    step_s: float
    step_cpu_s: float
    patch_s: float
    peak_bytes: int
    parameters: int


def measure(recipe: Recipe, plan: Plan, precision: str | None) -> Measured:
    """Train a few steps on noise, and predict a patch.

    Args:
        recipe: What to do.
        plan: What the network sees.
        precision: Of the layers; None to measure which is faster, too.
    """
    stage = plan.final
    rng = np.random.default_rng(0)
    i, j, k = stage.patch_shape
    # More than one patch, as scans are.
    k += 1
    image = rng.normal(size=(k, len(plan.channels), i, j)).astype(np.float32)
    classes = rng.integers(0, len(stage.labels) + 1, (k, i, j)).astype(np.uint8)
    case = PreparedCase("noise", CachedSource(image, Box((0, 0, 0), (i, j, k))), classes, classes)
    # So that the peak is our own.
    return_freed_memory()
    reset_peak()
    trainer = Trainer(recipe, plan, [case])
    state = trainer.begin(precision=precision)
    times = list(islice(_step_times(trainer, state), _MOST_STEPS))
    # The first one warms up.
    step_s, step_cpu_s = (float(each) for each in np.median(times[1:] or times, axis=0))
    patch = rng.normal(size=(1, *plan.input_shape(stage))).astype(np.float32)
    engine = TorchEngine(
        trainer.candidate,
        patch.shape,
        precision=state.engine_precision,
        activation=stage.activation,
    )
    # What a look at monitor cases needs counts in the memory.
    look(Pipeline(plan, {stage.name: engine}), [case])
    before_s = time.perf_counter()
    engine.run(patch)
    return Measured(
        precision=state.precision,
        step_s=step_s,
        step_cpu_s=step_cpu_s,
        patch_s=time.perf_counter() - before_s,
        peak_bytes=int(peak_memory_mb() * 1e6),
        parameters=sum(each.numel() for each in trainer.network.parameters()),
    )


def _step_times(trainer: Trainer, state: TrainingState) -> Iterator[tuple[float, float]]:
    """Seconds of each step, by the clock and of the processor, until it is known well."""
    began = time.perf_counter()
    started = began, time.process_time()
    for number, _ in enumerate(trainer.epoch(state)):
        now = time.perf_counter(), time.process_time()
        yield now[0] - started[0], now[1] - started[1]
        if number >= _LEAST_STEPS and now[0] - began > _ENOUGH_S:
            return
        started = time.perf_counter(), time.process_time()
