"""`leanseg datasets`: the public datasets and how leanseg expects them to lie."""

from __future__ import annotations

from typing import Annotated

import typer

from leanseg.cli.output import print_table
from leanseg.datasets.catalogue import PublicDataset, public_dataset, public_datasets


def command(
    name: Annotated[
        str | None, typer.Argument(help="Print this dataset's folder tree and notes.")
    ] = None,
) -> None:
    """List public datasets with home page, licence and expected layout; download nothing."""
    if name is not None:
        _print_dataset(public_dataset(name))
        return
    rows = [
        {
            "dataset": one.name,
            "modality": one.modality,
            "cases": one.cases,
            "licence": one.licence,
            "layout": one.layout,
            "home page": one.home,
        }
        for one in public_datasets()
    ]
    print_table(rows, left=tuple(rows[0]))


def _print_dataset(dataset: PublicDataset) -> None:
    rows = {
        "home page": dataset.home,
        "licence": dataset.licence,
        "modality": dataset.modality,
        "cases": dataset.cases,
        "annotated": ", ".join(dataset.organs),
        "layout": dataset.layout,
    }
    typer.echo(f"{dataset.title}\n")
    for key, value in rows.items():
        typer.echo(f"{key:<11}{value}")
    for heading, lines in (("Expected files", dataset.tree), ("Notes", dataset.notes)):
        if lines:
            typer.echo("\n  ".join((f"\n{heading}:", *lines)))
