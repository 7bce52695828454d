"""`leanseg phantom`: write a synthetic abdominal CT dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli.output import progress
from leanseg.errors import RecipeError


def command(
    output: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    cases: Annotated[int, typer.Option(help="Number of scans.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed gives the same scans.")] = 0,
    size: Annotated[int, typer.Option(help="Rows and columns of a slice, 64 to 512.")] = 256,
    slices: Annotated[
        int | None, typer.Option(help="Slices of a scan, 20 to 120; varies if not given.")
    ] = None,
    tumour: Annotated[
        str | None,
        typer.Option(
            help="Diameter of the pancreatic tumour in mm, 5 to 40, 0 for none; or a range, 5-40, "
            "over which the cases are spread."
        ),
    ] = None,
) -> None:
    """Write a synthetic abdominal CT dataset in the Decathlon layout, with exact labels."""
    from leanseg.datasets.phantom import phantom

    with progress() as display:
        written = display.count("writing scans", cases)
        phantom(
            output,
            cases,
            seed=seed,
            size=size,
            slices=slices,
            tumour_mm=None if tumour is None else _diameter(tumour),
            on_case=written,
        )
    typer.echo(output)


def _diameter(text: str) -> float | tuple[float, float]:
    """A diameter, or the two ends of a range.

    Raises:
        RecipeError: If it is neither.
    """
    try:
        first, *rest = map(float, text.split("-", maxsplit=1))
    except ValueError:
        raise RecipeError(
            f"--tumour is {text!r}; give a diameter in mm, such as 20, or a range, such as 5-40"
        ) from None
    return (first, rest[0]) if rest else first
