"""What layouts share: reading JSON, the meaning of labels, missing files, unique names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leanseg.datasets.case import Case
from leanseg.errors import DatasetError


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: If it cannot be read, or is not valid JSON (names line and column).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        msg = (
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}); correct the file"
        )
        raise DatasetError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not a text file in UTF-8; write the JSON again"
        raise DatasetError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); check the file"
        raise DatasetError(msg) from error


def foreground_labels(path: Path, listed: Any) -> dict[str, int]:
    """Foreground names to values, in ascending value, from either way of writing them.

    Args:
        path: The file that holds `listed`, for messages.
        listed: `{"0": "background", "1": "liver"}` (Decathlon) or `{"background": 0,
            "liver": 1}` (nnU-Net 2). Value 0 is the background and is left out.

    Raises:
        DatasetError: If there is no foreground label, a value is not an integer from 0 on, or
            a name or value occurs twice.
    """
    if not isinstance(listed, Mapping):
        msg = f'{path}: "labels" must map values to names, such as {{"1": "liver"}}'
        raise DatasetError(msg)
    by_value = all(isinstance(name, str) for name in listed.values())
    pairs = [(n, v) if by_value else (v, n) for v, n in listed.items()]
    labels: dict[str, int] = {}
    for name, written in pairs:
        value = _label_value(path, name, written)
        if value == 0:
            continue
        if name in labels or value in labels.values():
            msg = f"{path}: label {name!r} with value {value} is listed twice; make labels unique"
            raise DatasetError(msg)
        labels[name] = value
    if not labels:
        msg = f'{path}: "labels" names no foreground label; add one, such as {{"1": "liver"}}'
        raise DatasetError(msg)
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def _label_value(path: Path, name: Any, written: Any) -> int:
    try:
        value = int(written) if not isinstance(written, (bool, float)) else -1
    except (TypeError, ValueError):
        value = -1
    if value < 0 or not isinstance(name, str):
        msg = (
            f"{path}: label {name!r} has the value {written!r}; "
            "every label needs one whole number from 0 on"
        )
        raise DatasetError(msg)
    return value


def require_files(source: Path, files: Sequence[Path]) -> None:
    """Check that every listed file is there.

    Raises:
        DatasetError: Naming the first three that are not, and how many there are.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(str(file) for file in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        noun = "1 file that does" if len(missing) == 1 else f"{len(missing)} files that do"
        msg = f"{source}: names {noun} not exist: {shown}{more}; complete the dataset"
        raise DatasetError(msg)


def sorted_unique(source: Path, cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases sorted by name.

    Raises:
        DatasetError: If two have the same name.
    """
    counts = Counter(case.name for case in cases)
    for name, count in counts.items():
        if count > 1:
            msg = f"{source}: {count} cases are called {name!r}; give every scan its own name"
            raise DatasetError(msg)
    return tuple(sorted(cases, key=lambda case: case.name))
