"""Training as the loop runs it against a bare step, and its peak memory, on a CPU or a GPU.

The loop is leanseg's own, on phantoms, from the cache's memory maps through augmentation to the
optimiser. The bare step is PyTorch alone: network, loss, backward and optimiser on one batch that
is on the device already. Both take turns in one process; every job has a process of its own, which
gives its peak: of the GPU's memory, or of the process. Prints a Markdown table of medians.

    python benchmarks/bench_training_loop.py [--device cuda] [--jobs monet-8 hybrid-1] [--seconds 5]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_training_step import machine
from study_obelisk import HYBRID, HYBRID_NAME, MOVED, PHANTOM_LABELS, SPARSE

from leanseg.datasets.phantom import phantom
from leanseg.files import write_json
from leanseg.training import Recipe, load_recipe
from leanseg.training.recipe import validate_recipe

ROUNDS = 3


def monet(batch: int) -> Recipe:
    """MoNet on slices."""
    labels = "data.labels={pancreas: [7, 8]}"
    return load_recipe("monet-ct", [labels, f"phases.0.batch_size={batch}"])


def in_3d(
    network: str,
    shape: tuple[int, ...],
    phase: dict[str, Any],
    options: dict[str, Any] | None = None,
) -> Recipe:
    """A 3-D network on patches of this shape, or on frames of this shape."""
    content = {
        "name": network,
        "data": {"labels": PHANTOM_LABELS},
        "network": {"name": network, "options": options or {}},
        "plan": {"frame": {"axes": shape}, "patch": {"shape": shape}},
        "phases": [phase | {"epochs": 1}],
    }
    return validate_recipe(content, network)


def nnunet(batch: int) -> Recipe:
    """nnU-Net's patches: a third around foreground, Dice and cross-entropy, SGD."""
    phase = {
        "sampler": {"name": "patches"},
        "augmentation": [{"name": "mirror"}],
        "loss": [{"name": "dice"}, {"name": "cross-entropy"}],
        "optimiser": {"name": "SGD", "options": {"lr": 0.01, "momentum": 0.99, "nesterov": True}},
        "schedule": {"name": "polynomial"},
        "batch_size": batch,
        "clip_norm": 12.0,
        "selection": "last",
    }
    shape = (128, 128, 64)
    options = {"shape": list(shape), "spacing_mm": [1.0, 1.0, 2.0]}
    return in_3d("nnunet-3d", shape, phase, options)


WHOLE = (144, 144, 144)
JOBS: dict[str, Callable[[], Recipe]] = {
    "monet-8": lambda: monet(8),
    "monet-32": lambda: monet(32),
    "hybrid-1": lambda: in_3d(HYBRID_NAME, WHOLE, HYBRID | MOVED),
    "hybrid-4": lambda: in_3d(HYBRID_NAME, WHOLE, HYBRID | MOVED | {"batch_size": 4}),
    "obelisk-points": lambda: in_3d("obelisk", WHOLE, SPARSE),
    "nnunet-3d-2": lambda: nnunet(2),
}


def measure(job: str, precision: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step in both ways, and the peak of memory in MB."""
    import torch

    from leanseg.frames import CasePreparer
    from leanseg.progress import quiet_console
    from leanseg.training import start_run
    from leanseg.training.loading import batches
    from leanseg.training.optimisers import build_optimisers
    from leanseg.training.runtime import memory_format
    from leanseg.training.tasks.base import Batch
    from leanseg.training.trainer import PhaseParts, Trainer

    settings = {
        "precision": f"'{precision}'",
        "device": options.device,
        "workers": options.workers,
        "threads": options.threads or "null",
    }
    # One epoch has all the steps that there is time for.
    overrides = [f"training.{key}={value}" for key, value in settings.items()]
    recipe = JOBS[job]().with_overrides([*overrides, "phases.0.steps_per_epoch=2000"])
    cache = data.parent / "cache"
    folder = data.parent / f"{job}-{precision}"
    run = start_run(recipe, data, folder, cache, check=False, console=quiet_console())
    preparer = CasePreparer(run.plan, run.data.label_values, None, run.cache, run.data.annotated)
    cases = [preparer.prepare(case) for case in run.data.cases]
    trainer = Trainer(recipe, run.plan, cases)
    on_gpu = trainer.device.type == "cuda"
    # The bare step has the same network, but task and optimiser of its own.
    phase, network = recipe.phases[0], trainer.network
    parts = PhaseParts(phase, recipe, run.plan, cases)
    samples = parts.sampler.epoch(0, 1, phase.batch_size)
    read = next(batches(parts.sampler, samples, len(run.plan.labels), 0))
    image = read.image.to(trainer.device, memory_format=memory_format(run.plan.final.is_3d))
    batch = Batch(image, read.classes.to(trainer.device), read.seeds)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    losses = trainer.epoch(trainer.begin())
    for _ in range(2):
        next(losses)
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    (optimiser,) = build_optimisers(
        phase.optimiser.name, list(network.parameters()), phase.optimiser.options
    )

    def bare() -> None:
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=precision != "32"):
            loss = parts.task.loss(network, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if phase.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), phase.clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def seconds_of(step: Callable[[], Any], steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / steps

    bare()
    n = max(int(options.seconds / max(seconds_of(bare, 2), 1e-3)), 2)
    turns = [(seconds_of(bare, n), seconds_of(lambda: next(losses), n)) for _ in range(ROUNDS)]
    bare_s, loop_s = (statistics.median(each) for each in zip(*turns, strict=True))
    return {
        "job": job,
        "precision": precision,
        "batch": phase.batch_size,
        "bare_s": bare_s,
        "loop_s": loop_s,
        "peak_mib": peak,
        "device": torch.cuda.get_device_name() if on_gpu else machine(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--precisions", nargs="+", default=["32", "bf16-mixed"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="of every turn of the bare step")
    parser.add_argument("--json", type=Path, help="write the figures here, too, job by job")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "phantoms"
        phantom(data, 3, size=128, slices=64)
        for job in options.jobs:
            for precision in options.precisions:
                with context.Pool(1) as pool:
                    rows.append(pool.apply(measure, (job, precision, data, options)))
                print(rows[-1], flush=True)
                if options.json:
                    write_json(options.json, {"rows": rows})
    print(f"\n{rows[0]['device']}\n")
    print(
        "| job | batch | precision | bare step, s | loop, s | bare / loop | samples/s | peak, MiB |"
    )
    print("|---|--:|---|--:|--:|--:|--:|--:|")
    for row in rows:
        bare_s, loop_s = row["bare_s"], row["loop_s"]
        print(
            f"| {row['job']} | {row['batch']} | {row['precision']} | {bare_s:.4f} | {loop_s:.4f} "
            f"| {bare_s / loop_s:.2f} | {row['batch'] / loop_s:.1f} | {row['peak_mib']:,.0f} |"
        )


if __name__ == "__main__":
    main()
