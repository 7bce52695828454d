"""Arguments and options that several commands have, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.errors import RecipeError


def model_path(given: str) -> Path:
    """The model file that an argument means, by its path or by the name of a fetched model."""
    from leanseg.modelfile import find_model

    return find_model(given)


Model = Annotated[
    Path,
    typer.Argument(
        help="A model file (.leanseg), or the name of a fetched model.",
        parser=model_path,
        metavar="MODEL",
    ),
]
Data = Annotated[Path, typer.Argument(help="A dataset's folder, zip file or listing.")]
ModelOutput = Annotated[Path, typer.Option("--output", "-o", help="The model file to write.")]
NewFolder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write; new or empty.")]
Layout = Annotated[str | None, typer.Option(help="The dataset's layout; recognised if not given.")]
Channels = Annotated[
    list[int] | None,
    typer.Option(min=0, help="Which channel of a 4-D scan is the model's, from 0; may repeat."),
]
Series = Annotated[
    str | None, typer.Option(help="Which DICOM series: its number, description or UID.")
]
Geometry = Annotated[
    str,
    typer.Option(help="Where sform and qform disagree: auto (see docs), sform or qform."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; all cores if not given.")]
ShowIdentifiers = Annotated[
    bool, typer.Option("--show-identifiers", help="Also show patients' names and identifiers.")
]
AllowImports = Annotated[
    bool, typer.Option("--allow-imports", help="Run network code that the model file names.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the recipe: phases.0.epochs=20."),
]
Minutes = Annotated[
    float | None,
    typer.Option(help="Minutes until the model is written; a plan without any budget takes 30."),
]
CpuMinutes = Annotated[
    float | None, typer.Option(help="Minutes of processor time of all threads, training only.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps; the same bits every time.")]
Quality = Annotated[
    str | None,
    typer.Option(help="Instead of minutes: fast (10), balanced (60), best (folds of 60 each)."),
]
Memory = Annotated[str | None, typer.Option(help="Memory that training may take, such as 2GB.")]
On = Annotated[str, typer.Option(help="here, or ray: on a Ray cluster (leanseg[ray]).")]
Address = Annotated[
    str | None,
    typer.Option(help="With --on ray: host:port of a cluster, or auto; else one is started here."),
]


def on_ray(on: str, address: str | None) -> bool:
    """Whether work is done on a Ray cluster.

    Raises:
        RecipeError: If that is not what `--on` may say, or an address is given without it.
    """
    if on not in ("here", "ray"):
        raise RecipeError(f"--on {on}: there is no such place; choose here or ray")
    if address is not None and on != "ray":
        raise RecipeError("--address is that of a Ray cluster; give --on ray as well")
    return on == "ray"
