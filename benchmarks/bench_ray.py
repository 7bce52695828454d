"""Scans on Ray: throughput of 1, 2 and 4 worker processes, and what the scheduling costs.

    python benchmarks/bench_ray.py MODEL SCANS --copies 24

Every scan is predicted by one thread. The first row is the usual command, in which one process does
one scan after another, reading ahead. On Ray each worker loads the model once, in a round that does
not count. The last column is the time of a scan that is there already, and of a task that does
nothing: what a scan costs besides its prediction.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

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
        seconds = []
        for number in range(given.rounds):
            began = time.perf_counter()
            predict_all(model, tasks, folder / f"here{number}", **OPTIONS)
            seconds.append(time.perf_counter() - began)
        n = len(tasks)
        print("| | scans a second | seconds a scan | kept scan, ms | empty task, ms |")
        print("|---|--:|--:|--:|--:|")
        print(f"| no Ray | {n / median(seconds):.2f} | {median(seconds) / n:.3f} | | |", flush=True)
        for workers in (1, 2, 4):
            with ray_tasks(None, alone=False, cores=workers) as executor:
                warm = folder / f"warm{workers}"
                predict_spread(executor, loading, model, tasks, warm, **OPTIONS)
                seconds = []
                for number in range(given.rounds):
                    output = folder / f"ray{workers}-{number}"
                    began = time.perf_counter()
                    found = predict_spread(executor, loading, model, tasks, output, **OPTIONS)
                    seconds.append(time.perf_counter() - began)
                    assert all(result.status == "done" for result in found)
                began = time.perf_counter()
                found = predict_spread(executor, loading, model, tasks, output, **OPTIONS)
                kept_s = (time.perf_counter() - began) / n
                assert all(result.status == "skipped" for result in found)
                empty_s = empty(executor)
            print(
                f"| {workers} | {n / median(seconds):.2f} | {median(seconds) / n:.3f} "
                f"| {1000 * kept_s:.1f} | {1000 * empty_s:.2f} |",
                flush=True,
            )


def empty(executor: RayTasks, n: int = 300) -> float:
    """Seconds of a task that does nothing."""
    list(executor.run([Job("first", int, ())]))
    began = time.perf_counter()
    list(executor.run([Job(str(number), int, ()) for number in range(n)]))
    return (time.perf_counter() - began) / n


if __name__ == "__main__":
    main()
