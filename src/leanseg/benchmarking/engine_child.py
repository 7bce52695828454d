"""A child that predicts one scan with one engine: as a whole process, then once more, warm."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from leanseg.benchmarking.child import report, serve


def work(job: dict[str, Any]) -> None:
    """Do what `leanseg predict` does, then predict the same scan again from memory."""
    from leanseg.inference.batch import predict_all
    from leanseg.inference.inputs import collect_tasks
    from leanseg.inference.memory import peak_memory_mb
    from leanseg.inference.model import load_model

    report("imported")
    model = load_model(
        job["model"],
        engine=job["engine"],
        precision=job["precision"],
        threads=job["threads"],
        allow_imports=job["allow_imports"],
    )
    before_mb = peak_memory_mb()
    engine = model.predictor.engine
    report("loaded", engine=engine.name, precision=engine.precision)
    tasks = collect_tasks([Path(job["scan"])], model.plan)
    first = _Once("first slices")
    (result,) = predict_all(model, tasks, Path(job["output"]), on_slices=first)
    if result.status != "done":
        report("refused", kind="failed", message=result.message)
        return
    peak_mb = max(before_mb, result.peak_memory_mb)
    report("written", stages=result.stages, peak_memory_mb=peak_mb, file=str(result.output))
    if job["warm"]:
        _again(model, tasks[0])


class _Once:
    """Reports the first call alone."""

    def __init__(self, event: str) -> None:
        self._event: str | None = event

    def __call__(self, done: int, total: int) -> None:
        if self._event is not None:
            report(self._event, done=done, total=total)
            self._event = None


def _again(model: Any, task: Any) -> None:
    from dataclasses import replace

    from leanseg.datasets import load_case

    image, _ = load_case(replace(task.case, label_parts=()))
    report("read again")
    cpu, began = time.process_time(), time.perf_counter()
    prediction = model.predict_timed(image, task.channel_indices)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    report("warm", seconds=seconds, cpu_seconds=cpu_seconds, stages=vars(prediction.seconds))


if __name__ == "__main__":
    serve(work)
