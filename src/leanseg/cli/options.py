"""Arguments and options that several commands have, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="A model file (.leanseg).")]
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
