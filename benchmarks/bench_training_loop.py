"""End-to-end training throughput: the loop with loading and augmentation against a bare step.

The loop is leanseg's own, on a phantom dataset, from the cache's memory maps through the affine
augmentation to the optimiser; the bare step repeats one batch that is already in memory. Both
take turns in one process. Prints a Markdown table of medians.

    python benchmarks/bench_training_loop.py [--threads 2] [--rounds 3] [--steps 8]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from bench_training_step import machine

from leanseg.datasets.phantom import phantom
from leanseg.frames import CasePreparer
from leanseg.training import load_recipe, start_run
from leanseg.training.checkpoint import TrainingState
from leanseg.training.loading import batches
from leanseg.training.tasks.base import Batch
from leanseg.training.trainer import Trainer


def trainer(
    folder: Path, data: Path, precision: str, threads: int, workers: int
) -> tuple[Trainer, TrainingState]:
    overrides = [
        "data.labels={pancreas: [7, 8]}",
        f"training.precision='{precision}'",
        f"training.threads={threads}",
        f"training.workers={workers}",
        "training.checkpoint_interval_s=1000000",
    ]
    run = start_run(load_recipe("monet-ct", overrides), data, folder)
    preparer = CasePreparer(run.plan, run.data.label_values, None, run.cache)
    made = Trainer(run.recipe, run.plan, [preparer.prepare(case) for case in run.data.cases])
    return made, made.begin()


def loop_seconds(made: Trainer, state: TrainingState, steps: int, workers: int) -> float:
    sampler, size = made.parts.sampler, made.parts.phase.batch_size
    samples = sampler.epoch(state.step, steps, size)
    made._module.train()
    started = time.perf_counter()
    for batch in batches(sampler, samples, 1, workers):
        made._step(state, [batch])
        state.step += 1
    return (time.perf_counter() - started) / steps


def bare_seconds(made: Trainer, state: TrainingState, batch: Batch, steps: int) -> float:
    augmentations, made.parts.augmentations = made.parts.augmentations, []
    made._module.train()
    started = time.perf_counter()
    for _ in range(steps):
        made._step(state, [batch])
    made.parts.augmentations = augmentations
    return (time.perf_counter() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "phantom"
        phantom(data, 3, size=256, slices=40)
        made = {
            precision: trainer(
                Path(scratch) / precision, data, precision, options.threads, options.workers
            )
            for precision in ("32", "bf16-mixed")
        }
        seconds: dict[tuple[str, str], list[float]] = {}
        for number in range(options.rounds + 1):
            for precision, (one, state) in made.items():
                samples = one.parts.sampler.epoch(0, 1, one.parts.phase.batch_size)
                batch = next(batches(one.parts.sampler, samples, 1, 0))
                found = {
                    "bare step": bare_seconds(one, state, batch, options.steps),
                    "end to end": loop_seconds(one, state, options.steps, options.workers),
                }
                # The first round warms up.
                for what, value in found.items():
                    if number:
                        seconds.setdefault((precision, what), []).append(value)
    batch_size = made["32"][0].parts.phase.batch_size
    print(f"MoNet, 256 x 256, batch {batch_size}, {options.threads} threads; {machine()}\n")
    print("| precision | what | s/step | images/s | against the bare step |")
    print("|---|---|---|---|---|")
    for (precision, what), values in seconds.items():
        value = statistics.median(values)
        bare = statistics.median(seconds[precision, "bare step"])
        print(
            f"| {precision} | {what} | {value:.3f} | {batch_size / value:.1f} | "
            f"{value / bare:.2f} |"
        )


if __name__ == "__main__":
    main()
