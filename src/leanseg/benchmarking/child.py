"""One measured run: a scan predicted file to file in a process of its own, then again, warm.

The job comes as JSON on the standard input; the figures go to the file that it names. Times count
from the moment at which the parent started the process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Do the job; a user's error is written down as such."""
    job = json.loads(sys.stdin.read())
    if hasattr(os, "sched_setaffinity"):
        # Before any library asks how many there are.
        os.sched_setaffinity(0, job["cores"])
    from leanseg.errors import LeansegError

    try:
        figures = measure(job)
    except LeansegError as error:
        figures = {"refusal": str(error)}
    except MemoryError:
        figures = {"refusal": "it needs more memory than there is"}
    Path(job["figures"]).write_text(json.dumps(figures), encoding="utf-8")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Figures of one run, as `leanseg.benchmarking.run.Run` has them, and the engine's name.

    Args:
        job: "started" (seconds since the epoch), "cores", "model", "scan" and "mask" (paths),
            "engine", "precision", "allow_imports".
    """
    from leanseg.inference.memory import peak_memory_mb
    from leanseg.inference.model import load_model
    from leanseg.volumes import read_volume, write_mask

    model = load_model(
        job["model"],
        engine=job["engine"],
        precision=job["precision"],
        threads=len(job["cores"]),
        allow_imports=job["allow_imports"],
    )
    engine = model.engine
    load_s = time.time() - job["started"]
    mask = model.predict(job["scan"])
    write_mask(job["mask"], mask.array, like=mask)
    process_s, peak_mb = time.time() - job["started"], peak_memory_mb()
    del mask
    scan = read_volume(job["scan"])
    cpu, began = time.process_time(), time.perf_counter()
    model.predict(scan)
    return {
        "engine": engine.name,
        "precision": engine.precision,
        "load_s": load_s,
        "process_s": process_s,
        "latency_s": time.perf_counter() - began,
        "latency_cpu_s": time.process_time() - cpu,
        "peak_memory_mb": peak_mb,
    }


if __name__ == "__main__":
    main()
