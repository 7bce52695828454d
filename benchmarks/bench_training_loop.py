"""End-to-end training throughput: the loop with loading and augmentation against a bare step.

The loop is leanseg's own, on a phantom dataset, from the cache's memory maps through the affine
augmentation to the optimiser; the bare step repeats one batch that is already in memory. Both
take turns in one process. Prints a Markdown table of medians.

    python benchmarks/bench_training_loop.py [--threads 2] [--rounds 3] [--steps 8]
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import torch
from bench_training_step import machine
from rich.console import Console

from leanseg.datasets.phantom import phantom
from leanseg.frames import CasePreparer
from leanseg.progress import Display
from leanseg.training import load_recipe, start_run
from leanseg.training.loading import Batch, batches
from leanseg.training.loop import FoldTrainer


def trainer(folder: Path, data: Path, precision: str, threads: int, workers: int) -> FoldTrainer:
    overrides = [
        "data.labels={pancreas: [7, 8]}",
        f"training.precision='{precision}'",
        f"training.threads={threads}",
        f"training.workers={workers}",
        "training.checkpoint_interval_s=1000000",
    ]
    run = start_run(load_recipe("monet-ct", overrides), data, folder)
    preparer = CasePreparer(run.plan, run.data.label_values, None, run.cache)
    cases = [preparer.prepare(case) for case in run.data.cases]
    (folder / "fold_0").mkdir()
    display = Display(Console(file=io.StringIO()))
    return FoldTrainer(folder / "fold_0", run.recipe, run.plan, cases, [], display)


def loop_seconds(made: FoldTrainer, steps: int, workers: int) -> float:
    size = made._options.batch_size
    samples = made._sampler.epoch(made.state.step, steps * size)
    made._module.train()
    started = time.perf_counter()
    for batch in batches(made._cases, samples, size, workers):
        made._step(batch)
        made.state.step += 1
    return (time.perf_counter() - started) / steps


def bare_seconds(made: FoldTrainer, batch: Batch, steps: int) -> float:
    augmentations, made._augmentations = made._augmentations, []
    made._module.train()
    started = time.perf_counter()
    for _ in range(steps):
        made._step(batch)
    made._augmentations = augmentations
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
            for precision, one in made.items():
                sample = one._sampler.epoch(0, one._options.batch_size)
                batch = next(iter(batches(one._cases, sample, len(sample), 0)))
                found = {
                    "bare step": bare_seconds(one, batch, options.steps),
                    "end to end": loop_seconds(one, options.steps, options.workers),
                }
                # The first round warms up.
                for what, value in found.items():
                    if number:
                        seconds.setdefault((precision, what), []).append(value)
    batch_size = made["32"]._options.batch_size
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
