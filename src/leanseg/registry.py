"""What the registries of networks, losses and augmentations share: names to factories.

A registry is a table of name -> "module:attribute". The module is imported only when the name
is asked for, so that a table can list what is expensive to import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from leanseg.errors import RecipeError


def resolve(kind: str, table: Mapping[str, str], name: str) -> Callable[..., Any]:
    """The factory behind a name.

    Args:
        kind: What the table holds, for the error: "network", "loss", ...
        table: Name -> "package.module:attribute".
        name: The name to look up.

    Raises:
        RecipeError: The name is not in the table.
    """
    if name not in table:
        msg = f"{kind} {name!r} is not known; choose one of {', '.join(sorted(table))}"
        raise RecipeError(msg)
    module, _, attribute = table[name].partition(":")
    factory: Callable[..., Any] = getattr(import_module(module), attribute)
    return factory


def known_options(factory: Callable[..., Any], hidden: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the keyword options of a factory that are free to choose.

    What a `functools.partial` has settled is part of the name, no longer an option.
    """
    settled = set(factory.keywords) if isinstance(factory, partial) else set()
    parameters = inspect.signature(factory).parameters
    return tuple(name for name in parameters if name not in settled | set(hidden))


def check_options(kind: str, name: str, known: Iterable[str], given: Iterable[str]) -> None:
    """Refuse options that the factory does not have.

    Raises:
        RecipeError: Naming the options that are not known, and those that are.
    """
    known = sorted(known)
    unknown = sorted(set(given) - set(known))
    if unknown:
        choices = f"its options are {', '.join(known)}" if known else "it has no options"
        msg = f"{kind} {name!r} has no option {', '.join(map(repr, unknown))}; {choices}"
        raise RecipeError(msg)
