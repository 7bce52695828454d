"""`leanseg convert`: a dataset of any layout, written in another."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import print_facts, print_notes, progress


def command(
    data: options.Data,
    to: Annotated[str, typer.Option(help="Layout to write: decathlon, nnunet or plain.")],
    output: options.NewFolder,
    layout: options.Layout = None,
    geometry: options.Geometry = "auto",
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Convert even if the layout cannot express everything."),
    ] = False,
) -> None:
    """Write a dataset in another layout; files that fit already are copied byte for byte."""
    from leanseg.datasets import convert, open_dataset

    dataset = open_dataset(data, layout).read_as(geometry)
    with progress() as display:
        on_case = display.count("converting", len(dataset))
        done = convert(dataset, to, output, allow_loss=allow_loss, on_case=on_case)
    facts = {"layout": to, "converted_from": dataset.layout} | asdict(done)
    facts["folder"] = str(done.folder)
    print_notes(facts.pop("notes"))
    # What was not lost, renamed or renumbered needs no word.
    shown = {key: value for key, value in facts.items() if value not in ({}, ())}
    print_facts(shown, lists_inline=False)
    if to == "nnunet" and not re.fullmatch(r"Dataset\d{3}_.+", output.name):
        typer.echo("nnU-Net finds the folder under a name such as Dataset042_Liver", err=True)
