"""`leanseg networks`: every network, its size, its work and, as a choice, its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli.output import print_table
from leanseg.errors import MissingDependencyError

if TYPE_CHECKING:
    from leanseg.networks.published import Published

_RUNS = 5


def command(
    name: Annotated[str | None, typer.Argument(help="Show only this network.")] = None,
    latency: Annotated[
        bool,
        typer.Option("--latency", help="Also measure seconds per image on the CPU: takes minutes."),
    ] = False,
) -> None:
    """List networks: parameters, weights, multiply-adds at the paper's input size, latency."""
    from rich import box

    from leanseg.networks.published import published

    entries, rows = published(name), []
    for entry in entries:
        try:
            rows.append(_row(entry, latency))
        except MissingDependencyError as error:
            if name is not None:
                raise
            typer.echo(f"left out {entry.title}: {error}", err=True)
    # Markdown reads well on a terminal too.
    print_table(rows, left=("network", "paper", "input"), box=box.MARKDOWN)
    for entry in entries:
        if name is not None and entry.note:
            typer.echo(f"{entry.title}: {entry.note}")


def _row(entry: Published, latency: bool) -> dict[str, str]:
    """A line of the table: column to text."""
    from leanseg.networks.measure import network_cost

    cost = network_cost(
        entry.network, entry.input_shape, out_channels=entry.out_channels, options=entry.options
    )
    work = cost.multiply_adds
    row = {
        "network": entry.title,
        "paper": entry.paper or "-",
        "input": " x ".join(map(str, entry.input_shape)) or "-",
        "outputs": str(entry.out_channels),
        "trainable": f"{cost.parameters.trainable:,}",
        "as Keras counts": f"{cost.parameters.keras_total:,}",
        "in the paper": entry.parameters or "-",
        "weights (MB)": f"{cost.weight_bytes / 1e6:,.2f}",
        "multiply-adds": "-" if work is None else f"{work / 1e9:.2f} G",
    }
    if latency:
        row["s per image"] = f"{_latency_s(entry):.3f}" if entry.input_shape else "-"
    return row


def _latency_s(entry: Published) -> float:
    """Median seconds of one image through the engine that prediction uses, in float32."""
    import time
    from statistics import median

    import numpy as np
    import torch

    from leanseg.inference.engines.torch_engine import TorchEngine
    from leanseg.networks import build
    from leanseg.runtime import keep_large_blocks

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
