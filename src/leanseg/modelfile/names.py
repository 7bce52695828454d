"""The names of fetched models: where they lie on this computer, and which file a name means."""

from __future__ import annotations

import os
from pathlib import Path

from leanseg.modelfile.container import SUFFIX


def model_folder() -> Path:
    """Where fetched models lie: this user's data folder, as the system has it."""
    from platformdirs import user_data_path

    return user_data_path("leanseg", appauthor=False) / "models"


def find_model(given: Path | str) -> Path:
    """The model file that is meant: a path as it is, or the name of a model that was fetched.

    A file or folder of that name comes first.
    """
    path = Path(given)
    if len(path.parts) != 1 or path.suffix == SUFFIX or os.path.exists(path):  # noqa: PTH110
        return path
    fetched = model_folder() / f"{path}{SUFFIX}"
    # A name that is too long is none.
    return fetched if os.path.isfile(fetched) else path  # noqa: PTH113
