"""`leanseg models`: models that others published, listed, and fetched on request."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.cli.output import print_facts, progress
from leanseg.errors import LeansegError, require_package

if TYPE_CHECKING:
    from leanseg.modelfile.published import PublishedModel


def command(
    action: Annotated[str | None, typer.Argument(help="get, to fetch a model.")] = None,
    name: Annotated[str | None, typer.Argument(help="The model to fetch.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder with the model's files, for use without a network."),
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder for models, instead of this user's own.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="A signed list of models, instead of leanseg's own.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Public key (PEM) for the list's signature.")
    ] = None,
) -> None:
    """List models that others published; with `get NAME` fetch one from its authors' repository.

    A fetched model can be given by name wherever a model file is expected. Every file must match
    the list's SHA-256. No other command fetches anything.
    """
    from leanseg.modelfile import SUFFIX, model_folder
    from leanseg.modelfile.published import read_index

    folder = models or model_folder()
    known = read_index(index, key)
    if action is None:
        for model in known.values():
            path = folder / f"{model.name}{SUFFIX}"
            print_facts({model.name: _facts(model, path)}, lists_inline=False)
        return
    if action != "get" or name is None:
        msg = f"'leanseg models' takes no {action!r}; give nothing, or: leanseg models get NAME"
        raise LeansegError(msg if action != "get" else "which model? give: models get NAME")
    if name not in known:
        msg = f"no model {name!r} is listed; choose one of {', '.join(known)}"
        raise LeansegError(msg)
    path = folder / f"{name}{SUFFIX}"
    _get(known[name], path, source)
    typer.echo(f"{path}: {', '.join(known[name].organs)}")
    used = name if models is None else str(path)
    typer.echo(f"use it: leanseg predict {used} SCAN --output FOLDER")


def _facts(model: PublishedModel, path: Path) -> dict[str, Any]:
    return {
        "organs": ", ".join(model.organs),
        "modality": model.modality,
        "licence": model.licence,
        "size": f"{model.bytes / 1e6:.1f} MB",
        "source": model.source,
        "paper": model.paper,
        "sha256": {file.name: file.sha256 for file in model.files},
        "here": str(path) if path.exists() else "not fetched",
    }


def _get(model: PublishedModel, path: Path, source: Path | None) -> None:
    """Fetch a model's files, and make the model file of them, or nothing.

    Raises:
        LeansegError: If it is there already, or a file cannot be fetched or is not the one listed.
    """
    from leanseg.files import require_outputs, written_whole
    from leanseg.modelfile import read_model
    from leanseg.modelfile.published import fetch_file

    if path.exists():
        raise LeansegError(f"{path}: already exists; delete it to fetch it again")
    if model.kind == "obelisk":
        for package in ("torch", "lightning_fabric"):
            require_package(package, f"importing {model.name}", "leanseg[train]")
    require_outputs([path], new_folders=True)
    typer.echo(f"{model.name}: licence {model.licence}, from {model.source}")
    if model.licence_text:
        typer.echo(f"\n{model.licence_text}")
    with progress() as display, written_whole(path, in_new_folder=True) as scratch:
        fetched = [scratch.with_name(file.name) for file in model.files]
        for file, target in zip(model.files, fetched, strict=True):
            what = f"fetching {file.name}"
            display.begin(what, file.bytes)
            fetch_file(file, target, source, partial(display.advance, what))
        try:
            if model.kind == "obelisk":
                from leanseg.training.obelisk import import_obelisk

                display.begin("importing", None)
                import_obelisk(fetched, scratch)
                for each in fetched:
                    each.unlink()
            else:
                read_model(fetched[0])
                fetched[0].replace(scratch)
        except LeansegError as error:
            # Where it lay meanwhile says nothing to anybody.
            raise LeansegError(str(error).replace(f"{scratch.parent}{os.sep}", "")) from error
