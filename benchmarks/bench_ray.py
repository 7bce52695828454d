"""Scans on Ray: throughput of 1, 2 and 4 worker processes, and what the scheduling costs.

    python benchmarks/bench_ray.py MODEL SCANS --copies 24

Every scan is predicted by one thread. The first row is the usual command, in which one process does
one scan after another, reading ahead. On Ray each worker loads the model once, in a round that does
not count. Processor seconds are of all processes, Ray's own among them. The last columns are the
time of a scan that is there already, and of a task that does nothing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import psutil

from leanseg.executors import Job, RayTasks, ray_tasks
from leanseg.inference import load_model
from leanseg.inference.inputs import collect_tasks
from leanseg.inference.jobs import predict_all
from leanseg.inference.spread import predict_spread
from leanseg.machine import this_machine

OPTIONS = {"overwrite": False, "form": "nifti", "save_probabilities": False}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--copies", type=int, default=24, help="scans in all, some repeated")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(this_machine())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scans = folder / "scans"
        scans.mkdir()
        files = sorted(given.scans.glob("*.nii*"))
        for number in range(given.copies):
            shutil.copy(files[number % len(files)], scans / f"scan{number:03d}.nii.gz")
        loading = {
            "path": str(given.model), "engine": "auto", "precision": "f32", "device": "cpu",
            "threads": 1, "tta": "none", "max_memory": None, "allow_imports": False,
        }  # fmt: skip
        model = load_model(**loading)
        tasks = collect_tasks([scans], model.plan)
        predict_all(model, tasks[:1], folder / "warm", **OPTIONS)
        n = len(tasks)
        rounds = [
            measured(lambda k=k: predict_all(model, tasks, folder / f"here{k}", **OPTIONS))
            for k in range(given.rounds)
        ]
        print("| | scans a second | processor s a scan | kept scan, ms | empty task, ms |")
        print("|---|--:|--:|--:|--:|")
        print(f"| no Ray | {line(rounds, n)} | | |", flush=True)
        for workers in (1, 2, 4):
            with ray_tasks(None, alone=False, cores=workers) as executor:

                def predict(name: str, status: str = "done") -> None:
                    found = predict_spread(
                        executor, loading, model, tasks, folder / name, **OPTIONS
                    )
                    assert {result.status for result in found} == {status}

                names = [f"ray{workers}-{k}" for k in range(given.rounds)]
                predict(f"warm{workers}")
                rounds = [measured(lambda name=name: predict(name)) for name in names]
                kept_s, _ = measured(lambda name=names[0]: predict(name, "skipped"))
                told = f"{1000 * kept_s / n:.1f} | {1000 * empty(executor):.2f}"
            print(f"| {workers} | {line(rounds, n)} | {told} |", flush=True)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and processor seconds of this process and of all below it."""
    before, began = processor_s(), time.perf_counter()
    work()
    return time.perf_counter() - began, processor_s() - before


def processor_s() -> float:
    """Of this process and of all that it started that are there."""
    own = psutil.Process()
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def line(rounds: Sequence[tuple[float, float]], n: int) -> str:
    """Throughput and processor time, medians over rounds."""
    wall, used = (median(values) for values in zip(*rounds, strict=True))
    return f"{n / wall:.2f} | {used / n:.3f}"


def empty(executor: RayTasks, n: int = 300) -> float:
    """Seconds of a task that does nothing."""
    list(executor.run([Job("first", int, ())]))
    began = time.perf_counter()
    list(executor.run([Job(str(number), int, ()) for number in range(n)]))
    return (time.perf_counter() - began) / n


if __name__ == "__main__":
    main()
