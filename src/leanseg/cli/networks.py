"""`leanseg networks`: every network, its size, its work and, as a choice, its time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.errors import MissingDependencyError

if TYPE_CHECKING:
    from leanseg.networks.published import Published

_LOG_WIDTH = 500
_RUNS = 5


def command(
    name: Annotated[str | None, typer.Argument(help="Tell of this network alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    latency: Annotated[
        bool,
        typer.Option("--latency", help="Also measure seconds per image on the CPU: takes minutes."),
    ] = False,
) -> None:
    """List networks: parameters, weights, multiply-adds at the paper's input size, latency."""
    from leanseg.cli.requirements import require_torch

    require_torch("leanseg networks")
    from leanseg.networks.published import published

    facts = []
    for entry in published(name):
        try:
            facts.append(_facts(entry, latency))
        except MissingDependencyError as error:
            if name is not None:
                raise
            typer.echo(f"left out {entry.title}: {error}", err=True)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    _print_table([_row(each) for each in facts])
    for each in facts:
        if name is not None and each["note"]:
            typer.echo(f"{each['title']}: {each['note']}")


def _facts(entry: Published, latency: bool) -> dict[str, Any]:
    """What is known of a network, as JSON has it."""
    from leanseg.networks.measure import network_cost

    cost = network_cost(
        entry.network, entry.input_shape, out_channels=entry.out_channels, options=entry.options
    )
    facts: dict[str, Any] = {
        "name": entry.network,
        "options": dict(entry.options),
        "title": entry.title,
        "paper": entry.paper or None,
        "input_shape": list(entry.input_shape) or None,
        "out_channels": entry.out_channels,
        "trainable": cost.parameters.trainable,
        "keras_total": cost.parameters.keras_total,
        "published": entry.parameters or None,
        "weight_bytes": cost.weight_bytes,
        "multiply_adds": cost.multiply_adds,
        "note": entry.note or None,
    }
    return facts | ({"latency_s": _latency_s(entry)} if latency else {})


def _latency_s(entry: Published) -> float | None:
    """Median seconds of one image through the engine that prediction uses, in float32."""
    import time
    from statistics import median

    import numpy as np
    import torch

    from leanseg.inference.engines.torch_engine import TorchEngine
    from leanseg.networks import build
    from leanseg.runtime import keep_large_blocks

    if not entry.input_shape:
        return None
    keep_large_blocks()
    generator = torch.Generator().manual_seed(0)
    network = build(
        entry.network, out_channels=entry.out_channels, generator=generator, **entry.options
    )
    shape = (1, 1, *entry.input_shape)
    engine = TorchEngine(network, shape)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    seconds = []
    for _ in range(_RUNS + 1):
        started = time.perf_counter()
        engine.run(image)
        seconds.append(time.perf_counter() - started)
    # The first run warms up and is not counted.
    return median(seconds[1:])


def _row(facts: dict[str, Any]) -> dict[str, str]:
    """A line of the table: column to text."""
    work, seconds = facts["multiply_adds"], facts.get("latency_s")
    row = {
        "network": facts["title"],
        "paper": facts["paper"] or "-",
        "input": " x ".join(map(str, facts["input_shape"] or "-")),
        "outputs": str(facts["out_channels"]),
        "trainable": f"{facts['trainable']:,}",
        "as Keras counts": f"{facts['keras_total']:,}",
        "in the paper": facts["published"] or "-",
        "weights (MB)": f"{facts['weight_bytes'] / 1e6:,.2f}",
        "multiply-adds": "-" if work is None else f"{work / 1e9:.2f} G",
    }
    if "latency_s" in facts:
        row["s per image"] = "-" if seconds is None else f"{seconds:.3f}"
    return row


def _print_table(rows: list[dict[str, str]]) -> None:
    """In Markdown, which reads well on a terminal too."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    for column in rows[0] if rows else ():
        is_text = column in ("network", "paper", "input")
        table.add_column(column, justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    # A log has no width: nothing is folded.
    (console if console.is_terminal else Console(width=_LOG_WIDTH)).print(table)
