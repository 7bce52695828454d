"""`leanseg convert`: a dataset of any layout, written in another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import progress

if TYPE_CHECKING:
    from leanseg.datasets.convert import Conversion

_SHOWN = 5


def command(
    data: options.Data,
    to: Annotated[str, typer.Option(help="Layout to write: decathlon, nnunet or plain.")],
    output: options.NewFolder,
    layout: options.Layout = None,
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Write even what the layout cannot tell in full."),
    ] = False,
) -> None:
    """Write a dataset in another layout; files that fit already are copied byte for byte."""
    from leanseg.datasets import convert, open_dataset

    dataset = open_dataset(data, layout)
    with progress() as display:
        display.begin("converting", len(dataset))
        done = convert(
            dataset,
            to,
            output,
            allow_loss=allow_loss,
            progress=lambda n: display.advance("converting", n, len(dataset)),
        )
    for line in _summary(done, dataset.layout, to):
        typer.echo(line)


def _summary(done: Conversion, before: str, after: str) -> list[str]:
    lines = [
        f"{done.folder}: {_counted(done.n_cases, 'case')} from {before} to {after}; "
        f"{_counted(done.n_copied, 'file')} copied, {done.n_written} written"
    ]
    if done.renamed:
        lines.append(f"case names made safe: {_first(done.renamed)}")
    if done.renumbered:
        lines.append(f"label values renumbered: {_first(done.renumbered)}")
    lines += [f"lost: {sentence}" for sentence in done.losses]
    if after == "nnunet" and not re.fullmatch(r"Dataset\d{3}_.+", done.folder.name):
        lines.append("nnU-Net finds the folder under a name such as Dataset042_Liver")
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _first(changes: Mapping[str, object]) -> str:
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return ", ".join(f"{old} is {new}" for old, new in list(changes.items())[:_SHOWN]) + more
