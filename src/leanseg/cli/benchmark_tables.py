"""A benchmark as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from leanseg.cli.output import print_table

if TYPE_CHECKING:
    from leanseg.benchmarking.facts import ModelFacts
    from leanseg.benchmarking.run import Benchmark, Measurement

_LEGEND = (
    "s/scan: the scan in memory, the model warm (lowest to highest). Process: from its start to "
    "the written label map; start: until the model is ready. Peak: resident memory."
)


def print_benchmark(benchmark: Benchmark) -> None:
    """Print the machine, the models, and a table for each model."""
    size = " x ".join(map(str, benchmark.shape))
    threads = f"{benchmark.threads} thread{'s' * (benchmark.threads != 1)}"
    repeats = max(len(each.runs) for each in benchmark.measurements)
    typer.echo(
        f"{Path(benchmark.scan).name}, {size} voxels; {threads}, pinned to as many cores; "
        f"medians of {repeats}, each a process of its own, in turns\n{benchmark.machine}\n"
    )
    print_table([_model_row(each) for each in benchmark.models], left=("model", "input"))
    for model in benchmark.models:
        measurements = [each for each in benchmark.measurements if each.model == model.file]
        rows = [_row(each, benchmark.shape[2]) for each in measurements if each.runs]
        typer.echo(f"\n{model.name}")
        print_table(rows, left=("engine", "precision"))
        for line in _left_out(measurements):
            typer.echo(line)
    references = sorted({each.reference for each in benchmark.measurements if each.reference})
    same = f" Same labels: share of voxels as in {', '.join(references)}." if references else ""
    typer.echo(f"\n{_LEGEND}{same}")


def _model_row(model: ModelFacts) -> dict[str, str]:
    members = f", {model.members} networks" if model.members > 1 else ""
    work = model.multiply_adds
    return {
        "model": f"{model.name} ({model.network}{members})",
        "input": "x".join(map(str, model.input_shape)),
        "parameters": f"{model.parameters:,}",
        "as Keras counts": f"{model.keras_total:,}",
        "file (MB)": f"{model.file_bytes / 1e6:,.2f}",
        "multiply-adds": "-" if work is None else f"{work / 1e9:.3g} G",
    }


def _row(measurement: Measurement, n_slices: int) -> dict[str, str]:
    median, low, high = measurement.spread("latency_s")
    return {
        "engine": measurement.engine,
        "precision": measurement.precision,
        "s/scan": f"{median:.2f}",
        "(range)": f"({low:.2f}-{high:.2f})",
        "ms/slice": f"{1000 * median / n_slices:.1f}",
        "process (s)": f"{measurement.spread('process_s')[0]:.2f}",
        "start (s)": f"{measurement.spread('load_s')[0]:.2f}",
        "peak (MB)": f"{measurement.spread('peak_memory_mb')[0]:.0f}",
        "same labels": share(measurement.equal_voxels),
    }


def share(value: float | None) -> str:
    """A share in percent that is 100 only if every voxel is the same."""
    if value is None:
        return "-"
    return "100 %" if value == 1 else f"{min(100 * value, 99.9999):.4f} %"


def _left_out(measurements: Sequence[Measurement]) -> Iterator[str]:
    """What could not be measured, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in measurements:
        if not each.runs:
            reasons.setdefault((each.engine, each.message), []).append(each.precision)
    for (engine, message), precisions in reasons.items():
        yield f"{engine} {', '.join(precisions)}: not measured ({message})"
