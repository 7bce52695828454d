"""Values out of DICOM headers, as plain Python: what is missing or unreadable gives None or NaN.

Numbers become float64 from their text, so nothing is lost between the header and the grid.
pydicom's warnings may quote what identifies a patient, so whoever parses a file silences them.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any


def table(name: str) -> list[dict[str, str]]:
    """The lines of a table that lies beside this file, by column."""
    with Path(__file__).with_name(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(dataset: Any, keyword: str) -> str:
    """An element as text, in the character set of the file: "" where there is none."""
    # Control characters would move the cursor of the terminal that the text is printed on.
    return "".join(c for c in "\\".join(texts(dataset, keyword)) if c.isprintable())


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """The parts of an element with several values, such as ImageType, without padding."""
    return tuple(str(part).strip(" \0") for part in _values(dataset, keyword))


def numbers(dataset: Any, keyword: str) -> tuple[float, ...]:
    """The numbers of an element, NaN for what is none: () where the element is missing."""
    return tuple(_number(part) for part in _values(dataset, keyword))


def number(dataset: Any, keyword: str) -> float | None:
    """The first number of an element, None where there is no finite one."""
    found = numbers(dataset, keyword)
    return found[0] if found and math.isfinite(found[0]) else None


def integer(dataset: Any, keyword: str) -> int | None:
    """The first whole number of an element, None where there is none."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(dataset: Any, keyword: str) -> tuple[Any, ...]:
    """The datasets of a sequence: () where it is missing or broken."""
    from pydicom import Dataset

    return tuple(part for part in _values(dataset, keyword) if isinstance(part, Dataset))


def _values(dataset: Any, keyword: str) -> list[Any]:
    try:
        value = dataset.get(keyword)
    except Exception:  # what converts damaged bytes may fail in any way
        raw = dataset.get_item(keyword, keep_deferred=True).value
        value = raw.decode("latin-1") if isinstance(raw, bytes) else ""
    if value is None or value in ("", b""):
        return []
    is_one = isinstance(value, (str, bytes)) or not hasattr(value, "__getitem__")
    return [value] if is_one else list(value)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
