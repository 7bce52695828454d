"""`leanseg report`: a run, or several beside one another, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli.output import progress


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folder of the run, as given to train --output; several are compared.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="HTML file to write; default RUN/report.html, for one run."
        ),
    ] = None,
) -> None:
    """Write a self-contained HTML report: scores, curves, pictures, scans to scroll through, costs.

    A run in progress gets a report of what there is so far. Several runs are compared by their
    Dice; `leanseg compare --report` takes any metric, and predictions of other tools.
    """
    from leanseg.reports.run_report import report

    with progress() as display:
        display.begin("reading scans and drawing the report", None)
        path = report(runs, output)
    typer.echo(path)
