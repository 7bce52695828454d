"""Pages that are made from the code when the site is built: commands, recipes, public names.

A public name without a docstring, an option or a key of a recipe without a meaning ends the build.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = {
    "Volumes": ("Volume", "read", "write", "reorient", "resample", "crop", "paste"),
    "Data": ("Dataset", "Case", "open_dataset", "split", "check", "convert", "phantom"),
    "Plans": ("Axis", "Frame", "Patch", "Intensity", "Stage", "Plan"),
    "Networks, losses, augmentation": ("networks", "losses", "augmentation"),
    "Training": ("Recipe", "train", "resume", "Run"),
    "Models": ("Model", "load_model", "sliding_window", "package", "import_weights"),
    "Evaluation": ("evaluate", "Scores", "compare", "benchmark", "report"),
    "Errors": ("LeansegError",),
}


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that no file in docs/ holds."""
    pages = {
        "commands.md": commands_page(),
        "recipes.md": recipes_page(),
        "api.md": api_page(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that lead to files of the repository, where the site has a page."""
    markdown = re.sub(r"\]\((?:\.\./)?(CONTRIBUTING|CHANGELOG)\.md", _as_page, markdown)
    return re.sub(r"\]\(docs/([\w-]+\.md)", r"](\1", markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Public names where functions are called otherwise at home, such as read_volume."""
    import leanseg

    if page.file.src_uri == "api.md":
        for name in leanseg.__all__:
            home = getattr(getattr(leanseg, name), "__name__", name)
            if not inspect.ismodule(getattr(leanseg, name)):
                html = html.replace(
                    f'<span class="nf">{home}</span>', f'<span class="nf">{name}</span>'
                )
    return html


def _as_page(found: re.Match[str]) -> str:
    return f"]({found[1].lower()}.md"


# --- commands ---------------------------------------------------------------------------------


def commands_page() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    from importlib import import_module

    from leanseg.cli.main import COMMANDS

    rows = [f"| [`{name}`](#{name}) | {text} |" for name, text in COMMANDS.items()]
    intro = (
        "# Commands\n\nMade from the commands. Exit status: 0 when all went well, 1 when "
        "some cases failed, 2 for a mistake that you can correct, 130 and 143 after Ctrl-C and "
        "SIGTERM.\n"
    )
    lines = [intro, "| command | what it does |", "|---|---|", *rows, ""]
    for name in COMMANDS:
        command = import_module(f"leanseg.cli.{name.replace('-', '_')}").command
        parameters = list(_parameters(command))
        usage = " ".join(names for is_option, names, *_ in parameters if not is_option)
        lines += [f"## {name}\n", "```text", f"leanseg {name} [OPTIONS] {usage}".rstrip(), "```\n"]
        lines += [_prose(inspect.getdoc(command) or ""), ""]
        lines += ["| | value | default | meaning |", "|---|---|---|---|"]
        for _, names, kind, default, text in sorted(parameters, key=lambda each: each[0]):
            if not text:
                raise PluginError(f"leanseg {name}: {names} has no help")
            lines.append(f"| `{names}` | {kind} | {default} | {_cell(text)} |")
        lines.append("")
    return "\n".join(lines)


def _parameters(command: Any) -> Iterator[tuple[bool, str, str, str, str]]:
    """Of each parameter: whether it is an option, its names, values, default and help."""
    from typer.models import OptionInfo

    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if not get_args(hints[name]):
            continue  # The context, which is no parameter of the command line.
        annotation, info = get_args(hints[name])
        value = parameter.default
        required = value is inspect.Parameter.empty
        kind = "" if annotation is bool else _type(_given(annotation))
        if info.min is not None:
            kind += f" from {info.min}"
        default = "required" if required else "" if value in (None, False) else f"`{value}`"
        default = "on" if value is True else default
        if not isinstance(info, OptionInfo):
            names = (info.metavar or name).upper().rstrip(".")
            names += "..." if list in _origins(annotation) else ""
            yield False, names if required else f"[{names}]", kind, default, info.help
            continue
        plain = f"--{name.replace('_', '-')}"
        both = f"{plain}, {plain.replace('--', '--no-')}" if annotation is bool else plain
        # Within Annotated typer reads the first name where a default would be.
        given = [each for each in (info.default, *(info.param_decls or ())) if _is_name(each)]
        yield True, ", ".join(given) or both, kind, default, info.help


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("-")


def _given(annotation: Any) -> Any:
    """What is given on the command line: the type without "or nothing"."""
    left = [each for each in get_args(annotation) if each is not types.NoneType]
    if get_origin(annotation) in (Union, types.UnionType) and len(left) == 1:
        return left[0]
    return annotation


# --- recipes ----------------------------------------------------------------------------------


def recipes_page() -> str:
    """Every key of a recipe, the options of every part, and the built-in recipes."""
    from leanseg.augmentation.registry import AUGMENTATIONS
    from leanseg.losses.registry import LOSSES
    from leanseg.networks.registry import NETWORKS
    from leanseg.training.recipe import Recipe, builtin_recipes, load_recipe
    from leanseg.training.samplers.registry import SAMPLERS
    from leanseg.training.tasks.registry import TASKS

    intro = (
        "# Recipes: every key\n\nMade from the models that check a recipe. A key is a path, as "
        "`--set` takes it; [training](training.md) gives examples.\n"
    )
    lines = [intro]
    for title, prefix, model in _sections(Recipe):
        lines += [f"## {title}\n", _prose(_summary(model)), ""]
        lines += ["| key | values | default | meaning |", "|---|---|---|---|"]
        lines += [_row(prefix, model, name, each) for name, each in model.model_fields.items()]
        lines.append("")
    tables = {"Networks": NETWORKS, "Samplers": SAMPLERS, "Augmentations": AUGMENTATIONS}
    for title, table in {**tables, "Losses": LOSSES, "Tasks": TASKS}.items():
        lines += [f"## {title}\n", "| name | | options |", "|---|---|---|"]
        lines += [_part(name, home) for name, home in table.items()]
        lines.append("")
    lines += ["## Built-in recipes\n", "| recipe | network | |", "|---|---|---|"]
    for name in builtin_recipes():
        recipe = load_recipe(name)
        lines.append(f"| `{name}` | `{recipe.network.name}` | {_cell(recipe.description)} |")
    return "\n".join([*lines, ""])


def _sections(
    model: type[BaseModel], prefix: str = "", title: str = "A recipe"
) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """A model and the models in its fields, each with the path that leads to it."""
    from leanseg.training.recipe import Named

    yield title, prefix, model
    seen: set[type[BaseModel]] = {Named}
    for name, each in model.model_fields.items():
        several = list in _origins(each.annotation)
        for inner in _models(each.annotation):
            if inner not in seen:
                seen.add(inner)
                path = f"{prefix}{name}{'.0' if several else ''}."
                # Of several kinds each has its name.
                kind = f" ({inner.__name__})" if len(_models(each.annotation)) > 1 else ""
                yield from _sections(inner, path, f"`{path[:-1]}`{kind}")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for each in get_args(annotation) for model in _models(each)]


def _origins(annotation: Any) -> set[Any]:
    found = {get_origin(annotation)}
    for each in get_args(annotation):
        found |= _origins(each)
    return found


def _row(prefix: str, model: type[BaseModel], name: str, field: FieldInfo) -> str:
    meaning = _meanings(model).get(name) or field.description
    inner = _models(field.annotation)
    if not meaning and inner:
        meaning = _summary(inner[0])
    if not meaning:
        raise PluginError(f"{model.__name__}.{name}, a key of recipes, has no meaning")
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        default = "required"
    elif isinstance(value, BaseModel) or value is PydanticUndefined or name == "phases":
        default = "below"
    else:
        default = f"`{_short(value)}`"
    return f"| `{prefix}{name}` | {_values(field)} | {default} | {_cell(meaning)} |"


def _short(value: Any) -> str:
    """A value as YAML has it, in one line."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_short(each)}' for key, each in value.items())}}}"
    return {None: "null", True: "true", False: "false", "": '""'}.get(value, str(value))


def _values(field: FieldInfo) -> str:
    limits = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    found = {key: getattr(each, key) for each in field.metadata for key in limits
             if getattr(each, key, None) is not None}  # fmt: skip
    range_ = " ".join(f"{limits[key]} {value}" for key, value in found.items())
    return f"{_type(field.annotation)} {range_}".strip()


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in inner))
    if origin in (list, tuple):
        return f"{_type(inner[0])}, several"
    if origin is dict:
        return "mapping"
    if annotation is type(None):
        return "`null`"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "section" if annotation.__name__ != "Named" else "name, options"
    words = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`",
             Path: "path"}  # fmt: skip
    return words.get(annotation, "any")


def _part(name: str, home: str) -> str:
    from pkgutil import resolve_name

    from leanseg.registry import option_types

    factory = resolve_name(home)
    function = factory.func if isinstance(factory, partial) else factory
    always = {"in_channels", "out_channels", "generator", "cases", "stage", "seed", "terms"}
    settled = factory.keywords if isinstance(factory, partial) else {}
    meanings = _meanings(function, "Args")
    defaults = inspect.signature(factory).parameters
    options = []
    for option in option_types(factory):
        if option not in always:
            value = defaults[option].default
            default = "" if value is inspect.Parameter.empty else f" ({_short(value)})"
            meaning = meanings.get(option, "")
            options.append(f"`{option}`{default}{': ' if meaning else ''}{_cell(meaning)}")
    of = ", ".join(f"{key} {_short(value)}" for key, value in settled.items())
    summary = f"{_cell(_summary(function))} {of}".strip()
    return f"| `{name}` | {summary} | {'<br>'.join(options)} |"


# --- public names -----------------------------------------------------------------------------


def api_page() -> str:
    """The public names by subject, for mkdocstrings."""
    import leanseg

    public = [name for name in leanseg.__all__ if not name.startswith("__")]
    sorted_ = [name for names in SUBJECTS.values() for name in names]
    if missing := set(public) ^ set(sorted_):
        raise PluginError(f"docs/site/hooks.py sorts other names than are public: {missing}")
    intro = (
        "# Python\n\nWhat `leanseg.__all__` names is public; everything else may change. The "
        "examples run in the tests, in a folder with a small dataset `phantoms`, a scan "
        "`scan.nii.gz` and a model `model.leanseg`.\n"
    )
    lines = [intro]
    for subject, names in SUBJECTS.items():
        lines += [f"## {subject}\n"]
        for name in names:
            there = getattr(leanseg, name)
            if "Example:" not in (inspect.getdoc(there) or ""):
                raise PluginError(f"leanseg.{name} has no docstring with an example")
            home = there.__name__ if inspect.ismodule(there) else _home(there)
            lines += [f"::: {home}", "    options:"]
            if inspect.ismodule(there):
                # Shown by what it says; the guide has its functions.
                lines.append("      members: false")
            lines += [f'      heading: "leanseg.{name}"', f'      toc_label: "{name}"', ""]
    return "\n".join(lines)


def _home(there: Any) -> str:
    return f"{there.__module__}.{there.__qualname__}"


# --- docstrings -------------------------------------------------------------------------------


def _meanings(there: Any, section: str = "Attributes") -> dict[str, str]:
    """What a Google-style docstring says of attributes or arguments, those of bases included."""
    found: dict[str, str] = {}
    for each in reversed(there.__mro__ if inspect.isclass(there) else (there,)):
        _, _, rest = inspect.cleandoc(each.__doc__ or "").partition(f"\n{section}:\n")
        told = re.split(r"\n(?=\S)", rest)[0]
        found |= dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", told, re.MULTILINE))
    return found


def _summary(there: Any) -> str:
    return (inspect.getdoc(there) or "").split("\n\n")[0].replace("\n", " ")


def _cell(text: str) -> str:
    """Text for a cell of a table; what Python calls None is null in recipes."""
    text = re.sub(r"\bNone\b", "`null`", _prose(" ".join(text.split())))
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    """Text of docstrings and help, whose angle and square brackets are no markup."""
    parts = re.split("(`[^`]*`)", text)
    plain = (each.replace("<", "&lt;").replace("[", "\\[") for each in parts[::2])
    parts[::2] = list(plain)
    return "".join(parts)
