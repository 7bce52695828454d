"""`leanseg recipes`: the built-in recipes."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(help="Print this recipe in full.")] = None,
) -> None:
    """List the built-in recipes, or print one with every default written out."""
    from rich.console import Console
    from rich.table import Table

    from leanseg.training.recipe import builtin_recipes, load_recipe

    if name is not None:
        typer.echo(load_recipe(name).to_yaml(), nl=False)
        return
    table = Table("recipe", "network", "what it is", box=None, pad_edge=False)
    for known in builtin_recipes():
        recipe = load_recipe(known)
        table.add_row(known, recipe.network.name, recipe.description)
    Console().print(table)
