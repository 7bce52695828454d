"""`leanseg show`: what a recipe makes of real scans before the network sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import progress


def command(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a built-in recipe's name.")],
    data: options.Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture to write: .png or .html.")
    ] = Path("samples.png"),
    samples: Annotated[int, typer.Option(min=1, max=50, help="How many, a row each.")] = 4,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the samples; the recipe's if not given.")
    ] = None,
    overrides: options.Overrides = None,
) -> None:
    """Draw samples of a recipe's first phase, plain and augmented, with contours of the labels.

    Each row is a sample of one case: unchanged at the left, then augmented with several seeds, with
    what was drawn. Volumes are shown by the slice with most of a label.
    """
    from leanseg.files import require_outputs
    from leanseg.reports.samples import draw_samples, require_picture, write_samples
    from leanseg.training import load_recipe
    from leanseg.training.run import open_datasets

    require_picture(output)
    loaded = load_recipe(recipe, overrides or ())
    require_outputs([output], [data])
    dataset = open_datasets(data, loaded.data.layout)
    with progress() as display:
        on_case = display.count("preparing cases", min(samples, len(dataset)))
        chosen = loaded.training.seed if seed is None else seed
        write_samples(output, draw_samples(loaded, dataset, samples, chosen, on_case))
    typer.echo(f"{output} is written")
