"""`leanseg report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="Folder of the run, as given to train --output.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file to write; default RUN/report.html."),
    ] = None,
) -> None:
    """Write a run's self-contained HTML report: scores, curves, pictures, speed, recipe.

    A run still in training is reported as far as it has come.
    """
    from rich.console import Console

    from leanseg.reports import report

    with Console(stderr=True).status("reading scans and drawing the report"):
        path = report(run, output)
    typer.echo(path)
