"""JSON files that people write: read and validated, with errors that say where the mistake is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from leanseg.errors import DatasetError

Model = TypeVar("Model", bound=BaseModel)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: If it cannot be read, or is not valid JSON (names line and column).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); check the file"
        raise DatasetError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not valid JSON in UTF-8 ({error}); correct the file"
        raise DatasetError(msg) from error


def read_listing(path: Path, kind: type[Model]) -> Model:
    """The content of a JSON file that describes a dataset, validated.

    Raises:
        DatasetError: As `read_json` does, and if an entry is missing or is not what `kind` says.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = shortened(".".join(str(part) for part in first["loc"]) or "the file")
        reason = shortened(first["msg"].removeprefix("Value error, "), 300)[1:-1]
        found = shortened(first["input"])
        msg = f"{path}: {where}: {reason}, but found {found}; correct the file"
        raise DatasetError(msg) from error


def shortened(value: Any, limit: int = 80) -> str:
    """A value as it is written in Python (a path as it is), cut where it would fill a screen."""
    text = str(value) if isinstance(value, Path) else repr(value)
    # A path may hold line breaks, and parts of characters that no terminal prints.
    plain = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return "".join(plain) + ("..." if len(text) > limit else "")
