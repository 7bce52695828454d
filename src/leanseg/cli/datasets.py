"""`leanseg datasets`: the public datasets and how leanseg expects them to lie."""

from __future__ import annotations

from typing import Annotated

import typer

from leanseg.datasets.catalogue import PublicDataset, public_dataset, public_datasets

_LOG_WIDTH = 500


def command(
    name: Annotated[
        str | None, typer.Argument(help="Print this dataset's folder tree and notes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List public datasets with home page, licence and expected layout; download nothing."""
    chosen = None if name is None else public_dataset(name)
    if as_json:
        import json
        from dataclasses import asdict

        content = [asdict(one) for one in public_datasets()] if chosen is None else asdict(chosen)
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    elif chosen is None:
        _print_table()
    else:
        _print_dataset(chosen)


def _print_table() -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("dataset", "modality", "cases", "licence", "layout", "home page")
    table = Table(box=None, pad_edge=False)
    for column in columns:
        # A home page that is cut in two cannot be followed.
        table.add_column(column, overflow="fold", no_wrap=column in ("dataset", "home page"))
    for one in public_datasets():
        table.add_row(one.name, one.modality, one.cases, one.licence, one.layout, one.home)
    console = Console()
    # A log has no width: nothing is folded.
    (console if console.is_terminal else Console(width=_LOG_WIDTH)).print(table)


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
    typer.echo("\nExpected files:")
    for line in dataset.tree:
        typer.echo(f"  {line}")
    if dataset.notes:
        typer.echo("\nNotes:")
    for note in dataset.notes:
        typer.echo(f"  {note}")
