"""A batch of scans on many machines: each is a job that leaves its result where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from functools import lru_cache
from pathlib import Path
from typing import Any

from leanseg.errors import LeansegError
from leanseg.executors import Executor, Job
from leanseg.inference.formats import output_format
from leanseg.inference.inputs import PredictionTask, open_scan
from leanseg.inference.jobs import predict_all
from leanseg.inference.memory import Way, need_bytes, parse_bytes, resident_bytes
from leanseg.inference.model import Model, load_model
from leanseg.inference.records import CaseResult


def predict_spread(
    executor: Executor,
    loading: Mapping[str, Any],
    model: Model,
    tasks: Sequence[PredictionTask],
    output: Path,
    *,
    on_result: Callable[[CaseResult], None] = lambda result: None,
    **options: Any,
) -> list[CaseResult]:
    """As `predict_all`, with every scan a job of an executor.

    Model, scans and output have the same paths on every machine, seen from the same folder.

    Args:
        executor: Does the jobs.
        loading: Arguments of `load_model`, with `path`.
        model: The same model, loaded here.
        tasks: From `collect_tasks`.
        output: The folder.
        on_result: Called with each result when it is there.
        options: Of `predict_all`: `overwrite`, `form`, `save_probabilities`.

    Raises:
        LeansegError: If no machine has cores and memory enough for a scan.
    """
    names = [task.case.name for task in tasks]
    jobs = [
        Job(
            task.case.name,
            _predict,
            (str(Path.cwd()), dict(loading), task, str(output), options),
            loading["threads"],
            _need_bytes(loading["max_memory"], model, task, options),
        )
        for task in tasks
    ]
    results = {}
    for ended in executor.run(jobs):
        result = ended.value
        if result is None:
            suffix = output_format(options["form"]).suffix
            path = output / f"{ended.job.name}{suffix}"
            result = CaseResult(ended.job.name, path, "failed", str(ended.failure))
        results[result.name] = result
        on_result(result)
    return [results[name] for name in names]


def _need_bytes(
    max_memory: str | None, model: Model, task: PredictionTask, options: Mapping[str, Any]
) -> int:
    """What the process of a scan has at its peak; 0 for one that will fail there with a reason."""
    if max_memory is not None:
        return parse_bytes(max_memory)
    try:
        scan = open_scan(task.case)
        writing = output_format(options["form"]).memory_bytes(scan, model.label_values)
        return resident_bytes() + need_bytes(
            Way(None, model.streams(scan)),
            scan,
            model.plan,
            model.pipeline.engines,
            writing,
            save_probabilities=options["save_probabilities"],
        )
    except (LeansegError, OSError):
        return 0


def _predict(
    place: str,
    loading: Mapping[str, Any],
    task: PredictionTask,
    output: str,
    options: Mapping[str, Any],
) -> CaseResult:
    if not Path(place).is_dir():
        raise LeansegError(f"{place}: does not exist on every machine; work in a shared folder")
    with chdir(place):
        model = _loaded(tuple(sorted(loading.items())))
        return predict_all(model, [task], Path(output), **options)[0]


@lru_cache(1)
def _loaded(loading: tuple[tuple[str, Any], ...]) -> Model:
    """A process that does one scan after another loads the model once."""
    return load_model(**dict(loading))
