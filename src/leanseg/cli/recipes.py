"""`leanseg recipes`: the built-in recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from leanseg.cli.output import print_table


def command(
    name: Annotated[str | None, typer.Argument(help="Print this recipe in full.")] = None,
) -> None:
    """List the built-in recipes, or print one with every default written out."""
    from leanseg.training.recipe import builtin_recipes, load_recipe

    if name is not None:
        typer.echo(load_recipe(name).to_yaml(), nl=False)
        return
    recipes = {known: load_recipe(known) for known in builtin_recipes()}
    rows = [
        {"recipe": known, "network": recipe.network.name, "what it is": recipe.description}
        for known, recipe in recipes.items()
    ]
    print_table(rows, left=tuple(rows[0]))
