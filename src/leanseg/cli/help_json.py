"""`leanseg --help-json`: every command with its arguments and options, for programs.

Read from the commands' own signatures, as typer does: what typer makes of them differs between
its versions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import typer

from leanseg import __version__


def described(commands: Mapping[str, str]) -> dict[str, Any]:
    """What `leanseg --help` and the commands' own help say, as values that JSON has.

    Args:
        commands: Name to one line of help; the module of each has a function `command`.
    """
    return {
        "name": "leanseg",
        "version": __version__,
        "commands": [
            {"name": name, "summary": summary, **_command(_function(name))}
            for name, summary in commands.items()
        ],
    }


def _function(name: str) -> Callable[..., None]:
    function: Callable[..., None] = import_module(f"leanseg.cli.{name.replace('-', '_')}").command
    return function


def _command(function: Callable[..., None]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    arguments, options = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] is typer.Context:
            continue
        kind, info = get_args(hints[name])
        given = parameter.default
        is_required = given is inspect.Parameter.empty
        facts = {
            "name": name,
            **_type(kind),
            "required": is_required,
            "default": None if is_required else given,
            "help": info.help,
        }
        if isinstance(info, typer.models.ArgumentInfo):
            arguments.append(facts)
        else:
            # Of an annotation, the first name stands where otherwise the default does.
            flags = [each for each in (info.default, *(info.param_decls or ())) if each is not ...]
            options.append({"flags": flags or _flags(name, kind), **facts})
    return {"help": inspect.getdoc(function), "arguments": arguments, "options": options}


def _flags(name: str, kind: Any) -> list[str]:
    flag = name.replace("_", "-")
    return [f"--{flag}", *([f"--no-{flag}"] if kind is bool else [])]


def _type(kind: Any) -> dict[str, Any]:
    """What one value is, how many stand together, and whether there may be several of these."""
    kinds = [each for each in get_args(kind) if each is not NoneType]
    if get_origin(kind) not in (list, tuple) and kinds:
        (kind,) = kinds
    inner, origin = get_args(kind), get_origin(kind)
    return {
        "type": (inner[0] if inner else kind).__name__.lower(),
        "values": len(inner) if origin is tuple else 1,
        "multiple": origin is list,
    }
