"""A benchmark as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from leanseg.benchmarking.facts import ModelFacts
from leanseg.benchmarking.run import Benchmark, Measurement

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_LEGEND = (
    "s/scan: the scan in memory, the model warm (lowest to highest). Process: from its start to "
    "the written label map; start: until the model is ready. Peak: resident memory."
)


def tables(benchmark: Benchmark) -> Iterator[RenderableType]:
    """What is printed, in order: the machine, the models, and a table for each model."""
    size = " x ".join(map(str, benchmark.shape))
    threads = f"{benchmark.threads} thread{'s' * (benchmark.threads != 1)}"
    repeats = max(len(each.runs) for each in benchmark.measurements)
    yield (
        f"{Path(benchmark.scan).name}, {size} voxels; {threads}, pinned to as many cores; "
        f"medians of {repeats}, each a process of its own, in turns"
    )
    yield f"{benchmark.machine}\n"
    yield _models(benchmark.models)
    for number, (_, group) in enumerate(groupby(benchmark.measurements, lambda m: m.model)):
        measurements = list(group)
        yield f"\n{benchmark.models[number].name}"
        yield _results(measurements, benchmark.shape[2])
        yield from _left_out(measurements)
    references = sorted({each.reference for each in benchmark.measurements if each.reference})
    same = f" Same labels: share of voxels as in {', '.join(references)}." if references else ""
    yield f"\n{_LEGEND}{same}"


def _models(models: Sequence[ModelFacts]) -> Table:
    numbers = ("parameters", "as Keras\ncounts", "model file\nMB", "multiply-adds\nan input")
    table = _table(("model", "input"), numbers)
    for each in models:
        members = f", {each.members} networks" if each.members > 1 else ""
        table.add_row(
            f"{each.name} ({each.network}{members})",
            "x".join(map(str, each.input_shape)),
            f"{each.parameters:,}",
            f"{each.keras_total:,}",
            f"{each.file_bytes / 1e6:,.2f}",
            "-" if each.multiply_adds is None else f"{each.multiply_adds / 1e9:.3g} G",
        )
    return table


def _results(measurements: Sequence[Measurement], n_slices: int) -> Table:
    numbers = (
        "s/scan",
        "(range)",
        "ms/slice",
        "process\ns",
        "start\ns",
        "peak\nMB",
        "same\nlabels",
    )
    table = _table(("engine", "precision"), numbers)
    for each in measurements:
        if not each.runs:
            continue
        median, low, high = each.spread("latency_s")
        table.add_row(
            each.engine,
            each.precision,
            f"{median:.2f}",
            f"({low:.2f}-{high:.2f})",
            f"{1000 * median / n_slices:.1f}",
            f"{each.spread('process_s')[0]:.2f}",
            f"{each.spread('load_s')[0]:.2f}",
            f"{each.spread('peak_memory_mb')[0]:.0f}",
            share(each.equal_voxels),
        )
    return table


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


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
