"""The card of a method: its data, plan, cost and provenance, each fact a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from leanseg.plan import Axis
from leanseg.progress import duration
from leanseg.reports.page import file_size, number
from leanseg.reports.run_folder import RunFolder

Card = dict[str, dict[str, str]]


def card(runs: Sequence[RunFolder]) -> Card:
    """What is known of the runs of one method: heading to name to value; costs are of all runs.

    Args:
        runs: At least one; of several (seeds, folds) data and plan are those of the first.
    """
    first = runs[0]
    folds = [fold for run in runs for fold in run.folds]
    summaries = [fold.summary for fold in folds if fold.summary]
    facts: Card = {"Data": _data(first), "Plan": _plan(first), "Cost": _cost(summaries)}
    versions = first.environment.get("versions", {})
    machine = first.environment.get("machine", {})
    facts["Provenance"] = _known(
        {
            "Folders": ", ".join(run.folder.name for run in runs),
            "Trained folds": str(len(summaries)),
            "Data fingerprint (SHA-256)": first.data.fingerprint,
            "Versions": ", ".join(f"{k} {v}" for k, v in versions.items() if k in _TOLD),
            "Processor": str(machine.get("processor", "")),
            "Devices": ", ".join(map(str, machine.get("gpus", ()))),
        }
    )
    return facts


_TOLD = ("leanseg", "python", "torch")


def _data(run: RunFolder) -> dict[str, str]:
    data = run.data
    return {
        "Name": data.name,
        "Cases": number(len(data.cases)),
        "Channels": ", ".join(data.channels),
        "Labels": ", ".join(run.labels),
        "Split of the first fold": ", ".join(
            f"{len(getattr(run.splits[0], part))} {part}" for part in ("train", "monitor", "test")
        ),
    }


def _plan(run: RunFolder) -> dict[str, str]:
    stage = run.plan.final
    axes = " × ".join(_axis(axis) for axis in stage.frame.axes)
    return {
        "Stages": ", ".join(each.name for each in run.plan.stages),
        "Grid": axes,
        "Seen at once": " × ".join(map(str, stage.network_shape)),
    }


def _axis(axis: Axis) -> str:
    if axis.size:
        return str(axis.size)
    return f"{axis.spacing_mm:g} mm" if axis.spacing_mm else "own"


def _cost(summaries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not summaries:
        return {}
    last = summaries[-1]
    cases = [case for each in summaries for case in each["prediction"]["cases"]]

    def total(key: str) -> float | None:
        known = [each[key] for each in summaries if each.get(key) is not None]
        return sum(known) if known else None

    clock, processor = total("train_seconds"), total("train_cpu_seconds")
    memory = [each["peak_memory_mb"] for each in summaries if each.get("peak_memory_mb")]
    return _known(
        {
            "Network": last["network"],
            "Trainable parameters": number(last["parameters"]),
            "Model file": file_size(last["model_bytes"]),
            "Training, wall-clock time": "" if clock is None else duration(clock),
            "Training, processor time": "" if processor is None else duration(processor),
            "Peak memory in training": file_size(max(memory) * 1e6) if memory else "",
            "Prediction of a case, median": (
                f"{number(median(case['seconds'] for case in cases), 2)} s" if cases else ""
            ),
            "Threads, precision": f"{last['threads']}, {last['precision']}",
        }
    )


def _known(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}
