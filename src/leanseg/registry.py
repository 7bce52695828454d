"""What the registries of networks, losses and augmentations share: names to factories.

A registry is a table of name -> "module:attribute". The module is imported only when the name
is asked for, so that a table can list what is expensive to import. Options are checked where
they enter, against the annotations of the factory's arguments; the kinds of numbers below say
more than `int` and `float` do.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pkgutil import resolve_name
from typing import Annotated, Any, cast, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from leanseg.errors import LeansegError, RecipeError
from leanseg.files import shortened


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("should be odd")
    return number


_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

# No network has more channels, or more layers: what has would take hours to be refused.
Whole = Annotated[int, Field(ge=0, le=65536)]
Count = Annotated[int, Field(ge=1, le=65536)]
Layers = Annotated[int, Field(ge=1, le=200)]
LayerCounts = Annotated[Sequence[Layers], Field(min_length=1, max_length=32)]
Odd = Annotated[Count, AfterValidator(_odd)]
Counts = Annotated[Sequence[Count], Field(min_length=1, max_length=32)]
ThreeCounts = Annotated[Sequence[Count], Field(min_length=3, max_length=3)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def resolve(kind: str, table: Mapping[str, str], name: str) -> Callable[..., Any]:
    """The factory behind a name.

    Args:
        kind: What the table holds, for the error: "network", "loss", ...
        table: Name -> "package.module:attribute".
        name: The name to look up, or an import path "package.module:attribute" of the user's own.

    Raises:
        RecipeError: The name is not in the table; the error suggests the nearest that is. Or
            there is nothing at the import path.
    """
    if ":" in name:
        return imported(kind, name)
    if name not in table:
        names = ", ".join(sorted(table))
        hint = did_you_mean([name], table)
        raise RecipeError(f"{kind} {shortened(name)} is not known{hint}; choose one of {names}")
    return resolve_name(table[name])


def imported(kind: str, path: str) -> Callable[..., Any]:
    """What an import path names: this runs the module's code.

    Args:
        kind: As in `resolve`.
        path: "package.module:Name", of a class or a function.

    Raises:
        RecipeError: It is no import path, or there is no such module, class or function.
    """
    if not _IMPORT_PATH.fullmatch(path):
        msg = f"{kind} {shortened(path)} is not an import path; write it as 'package.module:Name'"
        raise RecipeError(msg)
    module, _, attribute = path.partition(":")
    try:
        known = vars(import_module(module))
    except Exception as error:  # whatever another's module does when it is imported
        msg = f"{kind} {shortened(path)}: module {module!r} cannot be imported ({error})"
        raise RecipeError(msg) from error
    found = known.get(attribute)
    if not callable(found):
        near = did_you_mean([attribute], (name for name, each in known.items() if callable(each)))
        raise RecipeError(
            f"{kind} {shortened(path)}: module {module!r} has no class {attribute!r}{near}"
        )
    return cast("Callable[..., Any]", found)


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


def check_names(kind: str, name: str, known: Iterable[str], given: Iterable[str]) -> None:
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


def check_value(kind: str, name: str, option: str, annotation: Any, value: Any) -> None:
    """Refuse a value that is not what the option's annotation says.

    Raises:
        RecipeError: Naming the option, its value and what it must be.
    """
    try:
        checked = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
        checked.validate_python(value, strict=True)
    except ValidationError as error:
        reasons = dict.fromkeys(each["msg"] for each in error.errors())
        wanted = " or ".join(re.sub("^(Input|Value error,|Value) ", "", each) for each in reasons)
        msg = f"{kind} {name!r}: option {option!r} is {shortened(value)} but {wanted}"
        raise RecipeError(msg) from error


def option_types(factory: Callable[..., Any]) -> dict[str, Any]:
    """The keyword options of a factory that are free to choose, and their annotations.

    What a `functools.partial` has settled is part of the name, no longer an option.
    """
    settled = set(factory.keywords) if isinstance(factory, partial) else set()
    function = factory.func if isinstance(factory, partial) else factory
    hints = get_type_hints(
        function.__init__ if inspect.isclass(function) else function, include_extras=True
    )
    parameters = inspect.signature(factory).parameters
    return {name: hints.get(name, Any) for name in parameters if name not in settled}


def make(
    kind: str,
    table: Mapping[str, str],
    name: str,
    options: Mapping[str, Any],
    always: Iterable[str] = (),
) -> Any:
    """Build what a name stands for; the one place where its options are checked.

    Args:
        kind: As in `resolve`.
        table: As in `resolve`.
        name: As in `resolve`.
        options: Keyword arguments of the factory. Their values must be what its annotations
            say, such as `dropout: Rate`.
        always: Arguments that every factory of the table takes: no options, not checked.

    Raises:
        RecipeError: A name, option or value that is not known.
    """
    factory = resolve(kind, table, name)
    always = set(always)
    types = {key: each for key, each in option_types(factory).items() if key not in always}
    check_names(kind, name, types, set(options) - always)
    for option in set(options) - always:
        check_value(kind, name, option, types[option], options[option])
    try:
        return factory(**options)
    except LeansegError:
        raise
    except Exception as error:  # whatever a factory, or a library, says of options
        reason = str(error).partition("\n")[0] or type(error).__name__
        msg = f"{kind} {name!r} cannot be built with these options ({reason})"
        raise RecipeError(msg) from error
