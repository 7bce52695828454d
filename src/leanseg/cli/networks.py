"""`leanseg networks`: every network, its size, its work and, as a choice, its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.errors import MissingDependencyError

if TYPE_CHECKING:
    from leanseg.networks.catalogue import Entry

_LOG_WIDTH = 500
_MEGABYTE = 1e6
_UNKNOWN = "-"


def command(
    name: Annotated[str | None, typer.Argument(help="Tell of this network alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown.")
    ] = False,
    latency: Annotated[
        bool,
        typer.Option("--latency", help="Also measure seconds per image on the CPU: takes minutes."),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of PyTorch for --latency.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs whose median --latency gives.")] = 5,
) -> None:
    """List networks: parameters, model file, multiply-adds at the paper's input size, latency."""
    from rich.console import Console
    from rich.progress import track

    from leanseg.cli.requirements import require_torch

    require_torch("leanseg networks")
    from leanseg.networks.catalogue import entries

    listed = entries(name)
    watching = track(
        listed,
        "measuring",
        console=Console(stderr=True),
        disable=not latency or not Console(stderr=True).is_terminal,
        transient=True,
    )
    facts = []
    for entry in watching:
        try:
            facts.append(_facts(entry, latency, threads, runs))
        except MissingDependencyError as error:
            if name is not None:
                raise
            typer.echo(f"left out {entry.title}: {error}", err=True)
    if as_json:
        import json

        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    elif as_markdown:
        for line in _markdown([_row(each) for each in facts]):
            typer.echo(line)
    elif name is None:
        _print_table([_row(each) for each in facts])
    else:
        for number, each in enumerate(facts):
            typer.echo("\n" * bool(number) + "\n".join(_details(each)))


def _facts(entry: Entry, latency: bool, threads: int | None, runs: int) -> dict[str, Any]:
    """What is known of an entry, as JSON has it."""
    from leanseg.networks.measure import network_cost

    cost = network_cost(
        entry.network,
        entry.input_shape,
        in_channels=entry.in_channels,
        out_channels=entry.out_channels,
        options=entry.options,
    )
    facts: dict[str, Any] = {
        "name": entry.network,
        "options": dict(entry.options),
        "title": entry.title,
        "paper": entry.paper or None,
        "input_shape": list(entry.input_shape) or None,
        "in_channels": entry.in_channels,
        "out_channels": entry.out_channels,
        "trainable": cost.parameters.trainable,
        "keras_total": cost.parameters.keras_total,
        "published": entry.published or None,
        "model_bytes": _model_bytes(entry, cost.weights),
        "multiply_adds": cost.multiply_adds,
        "uncounted_operators": list(cost.uncounted),
        "note": entry.note or None,
    }
    if latency:
        facts |= _latency(entry, threads, runs)
    return facts


def _model_bytes(entry: Entry, weights: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Size of the file of a fresh model, without an exported network or a record of training.

    Args:
        entry: The network.
        weights: Name -> numpy's name of the type, and shape.
    """
    import numpy as np

    from leanseg.modelfile import Member, ModelFile, NetworkSpec, packed
    from leanseg.preprocessing import Plan

    labels = tuple(f"class {number}" for number in range(1, max(entry.out_channels, 2)))
    channels = tuple(f"channel {number}" for number in range(entry.in_channels))
    spec = NetworkSpec(
        name=entry.network,
        in_channels=entry.in_channels,
        out_channels=entry.out_channels,
        options=dict(entry.options),
    )
    zeros = {name: np.zeros(shape, kind) for name, (kind, shape) in weights.items()}
    content, _ = packed(ModelFile.of(Plan(labels=labels, channels=channels), Member(spec, zeros)))
    return len(content)


def _latency(entry: Entry, threads: int | None, runs: int) -> dict[str, Any]:
    """Median seconds of one image through the engine that prediction uses, in float32."""
    import time
    from statistics import median

    import numpy as np
    import torch

    from leanseg.inference.engines.torch_engine import TorchEngine
    from leanseg.networks import build
    from leanseg.runtime import keep_large_blocks

    keep_large_blocks()
    if threads is not None:
        torch.set_num_threads(threads)
    if not entry.input_shape:
        return {"latency_s": None, "threads": torch.get_num_threads()}
    network = build(
        entry.network,
        in_channels=entry.in_channels,
        out_channels=entry.out_channels,
        generator=torch.Generator().manual_seed(0),
        **entry.options,
    )
    shape = (1, entry.in_channels, *entry.input_shape)
    engine = TorchEngine(network, shape)
    del network
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        engine.run(image)
        seconds.append(time.perf_counter() - started)
    # The first run warms up and is not counted.
    return {"latency_s": median(seconds[1:]), "threads": torch.get_num_threads()}


def _row(facts: dict[str, Any]) -> dict[str, str]:
    """A line of the table: column to text."""
    shape = facts["input_shape"]
    row = {
        "network": facts["title"],
        "paper": facts["paper"] or _UNKNOWN,
        "input": " x ".join(map(str, shape)) if shape else _UNKNOWN,
        "outputs": str(facts["out_channels"]),
        "trainable": f"{facts['trainable']:,}",
        "as Keras counts": f"{facts['keras_total']:,}",
        "in the paper": facts["published"] or _UNKNOWN,
        "model file (MB)": f"{facts['model_bytes'] / _MEGABYTE:,.2f}",
        "multiply-adds": _giga(facts),
    }
    if "latency_s" in facts:
        seconds = facts["latency_s"]
        column = f"s per image ({_threads(facts)})"
        row[column] = _UNKNOWN if seconds is None else f"{seconds:.3f}"
    return row


def _giga(facts: dict[str, Any]) -> str:
    if facts["multiply_adds"] is None:
        return _UNKNOWN
    more = "more than " if facts["uncounted_operators"] else ""
    return f"{more}{facts['multiply_adds'] / 1e9:.2f} G"


def _threads(facts: dict[str, Any]) -> str:
    return "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"


def _markdown(rows: list[dict[str, str]]) -> list[str]:
    columns = list(rows[0])
    texts = {"network", "paper", "input"}
    rule = ["---" if column in texts else "---:" for column in columns]
    lines = [columns, rule, *([row[column] for column in columns] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _print_table(rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        text = column in ("network", "paper", "input")
        table.add_column(column, justify="left" if text else "right", no_wrap=column == "network")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    # A log has no width: nothing is folded.
    (console if console.is_terminal else Console(width=_LOG_WIDTH)).print(table)


def _details(facts: dict[str, Any]) -> list[str]:
    row = _row(facts)
    row["model file"] = f"{facts['model_bytes']:,} bytes"
    del row["model file (MB)"]
    if facts["uncounted_operators"]:
        row["not counted"] = ", ".join(facts["uncounted_operators"])
    if facts["note"]:
        row["note"] = facts["note"]
    width = max(map(len, row)) + 2
    return [f"{column:<{width}}{text}" for column, text in row.items()]
