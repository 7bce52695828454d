"""`leanseg report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli.output import progress


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
    from leanseg.reports import report

    with progress() as display:
        display.begin("reading scans and drawing the report", None)
        path = report(run, output)
    typer.echo(path)
