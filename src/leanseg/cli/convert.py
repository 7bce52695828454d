"""`leanseg convert`: a dataset of any layout, written in another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from leanseg.datasets.convert import Conversion

_SHOWN = 5


def command(
    data: Annotated[Path, typer.Argument(help="A dataset's folder, zip file or CSV listing.")],
    to: Annotated[str, typer.Option(help="Layout to write: decathlon, nnunet or plain.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; new or empty.")],
    layout: Annotated[
        str | None, typer.Option(help="Layout of the data; recognised if not given.")
    ] = None,
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Write even what the layout cannot tell in full."),
    ] = False,
) -> None:
    """Write a dataset in another layout; files that fit already are copied byte for byte."""
    from rich.console import Console

    from leanseg.datasets import convert, open_dataset
    from leanseg.progress import Display

    dataset = open_dataset(data, layout)
    total = len(dataset)
    with Display(Console(stderr=True)) as display:
        display.begin("Converting cases", total)
        done = convert(
            dataset,
            to,
            output,
            allow_loss=allow_loss,
            progress=lambda n: display.advance("Converting cases", n, total, f"{n}/{total}"),
        )
    for line in _summary(done, dataset.layout, to):
        typer.echo(line)


def _summary(done: Conversion, before: str, after: str) -> list[str]:
    lines = [
        f"{done.folder}: {_counted(done.n_cases, 'case')} from {before} to {after}; "
        f"{_counted(done.n_copied, 'file')} copied, {done.n_written} written"
    ]
    if done.renamed:
        pairs = [f"{old!r} is {new}" for old, new in done.renamed.items()]
        lines.append(f"case names made safe: {_first(pairs)}")
    if done.renumbered:
        pairs = [f"{value} {name}" for name, value in done.renumbered.items()]
        lines.append(f"label values renumbered: {_first(pairs)}")
    lines += [f"lost: {sentence}" for sentence in done.losses]
    if after == "nnunet" and not re.fullmatch(r"Dataset\d{3}_.+", done.folder.name):
        lines.append("nnU-Net finds the folder under a name such as Dataset042_Liver")
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _first(pairs: list[str]) -> str:
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return ", ".join(pairs[:_SHOWN]) + more
