"""`leanseg ensemble`: several models of one plan as one model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli import options
from leanseg.errors import ModelFileError


def command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_MODEL...",
            help="Run folders, for all their folds, or models (files or names).",
            parser=options.model_path,
        ),
    ],
    output: options.ModelOutput,
) -> None:
    """Join models into an ensemble, whose members' probabilities are averaged.

    They have to be of one plan, with the same labels and channels; their networks may differ.
    """
    from leanseg.files import require_outputs
    from leanseg.modelfile import join_members, read_model, write_model

    paths = [path for source in sources for path in _model_paths(source)]
    require_outputs([output], paths, new_folders=True)
    model = write_model(output, join_members([read_model(path) for path in paths]))
    typer.echo(f"{output}: ensemble of {len(model.members)}, {', '.join(model.plan.labels)}")
    if not model.is_exported:
        typer.echo("it needs PyTorch to run; 'leanseg export' changes that")


def _model_paths(source: Path) -> list[Path]:
    """The model files of a run's folds, in their order; a file itself.

    Raises:
        ModelFileError: If a folder holds none.
    """
    if not source.is_dir():
        return [source]
    found = sorted(source.glob("fold_*/model.leanseg"), key=lambda path: (len(str(path)), path))
    if not found:
        raise ModelFileError(
            f"{source}: holds no fold_*/model.leanseg; give a run that has finished a fold, or "
            "model files"
        )
    return found
