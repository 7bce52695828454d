"""What the registries of networks, losses and augmentations share: names to factories.

A registry is a table of name -> "module:attribute". The module is imported only when the name
is asked for, so that a table can list what is expensive to import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
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
        RecipeError: The name is not in the table; the error suggests the nearest that is.
    """
    if name not in table:
        names = ", ".join(sorted(table))
        msg = f"{kind} {name!r} is not known{did_you_mean([name], table)}; choose one of {names}"
        raise RecipeError(msg)
    module, _, attribute = table[name].partition(":")
    factory: Callable[..., Any] = getattr(import_module(module), attribute)
    return factory


def did_you_mean(unknown: Iterable[str], known: Iterable[str]) -> str:
    """A suggestion to put behind the unknown names in an error.

    Args:
        unknown: What was asked for. Upper case and underscores for hyphens do not count.
        known: What there is.

    Returns:
        " (did you mean 'unet' or 'dice'?)", or nothing where no known name is near.
    """
    plain = {_plainly(name): name for name in known}
    near = (get_close_matches(_plainly(name), plain, n=1) for name in unknown)
    names = list(dict.fromkeys(plain[match[0]] for match in near if match))
    return f" (did you mean {' or '.join(map(repr, names))}?)" if names else ""


def _plainly(name: str) -> str:
    return str(name).lower().replace("_", "-")


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
        choices += did_you_mean(unknown, known)
        msg = f"{kind} {name!r} has no option {', '.join(map(repr, unknown))}; {choices}"
        raise RecipeError(msg)
