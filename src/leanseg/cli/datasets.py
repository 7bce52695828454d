"""`leanseg datasets`: the public datasets and how leanseg expects them to lie."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from leanseg.cli.output import print_facts, print_table
from leanseg.datasets.catalogue import public_dataset, public_datasets


def command(
    name: Annotated[
        str | None, typer.Argument(help="Print this dataset's folder tree and notes.")
    ] = None,
) -> None:
    """List public datasets with home page, licence and expected layout; download nothing."""
    if name is not None:
        print_facts(asdict(public_dataset(name)), lists_inline=False)
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
