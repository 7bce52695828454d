"""Values out of DICOM headers, as plain Python: what is missing or unreadable gives None or NaN.

Decimal strings are turned into float64 from their text, so nothing is lost between the header
and the grid. Nothing here validates, logs or warns, since a warning may quote what identifies a
patient.
"""

from __future__ import annotations

import math
from typing import Any

_TEXT_NUMBERS = frozenset({"DS", "IS"})


def text(dataset: Any, keyword: str) -> str:
    """An element of letters and digits, without padding: "" where there is none."""
    value = _raw(dataset, keyword)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return "" if value is None else str(value).strip(" \0")


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """The parts of an element with several values, such as ImageType."""
    value = _raw(dataset, keyword)
    if isinstance(value, bytes):
        value = value.decode("latin-1").split("\\")
    elif isinstance(value, str) or value is None:
        value = [value] if value else []
    return tuple(str(part).strip(" \0") for part in value)


def decoded(dataset: Any, keyword: str) -> str:
    """An element of free text, in the character set of the file."""
    try:
        value = dataset.get(keyword)
    except Exception:  # an unknown character set must not cost the scan
        return text(dataset, keyword)
    # Control characters would move the cursor of the terminal that the text is printed on.
    return "".join(c for c in str(value or "").strip(" \0") if c.isprintable())


def numbers(dataset: Any, keyword: str) -> tuple[float, ...]:
    """The numbers of an element, NaN for what is none: () where the element is missing."""
    item = _item(dataset, keyword)
    value = None if item is None else item.value
    if value is None or value in (b"", ""):
        return ()
    if isinstance(value, bytes):
        if (item.VR or _dictionary_vr(keyword)) in _TEXT_NUMBERS:
            return tuple(_number(part) for part in value.rstrip(b" \0").split(b"\\"))
        try:
            value = dataset[keyword].value
        except Exception:  # whatever the bytes may be, they are no numbers
            return (math.nan,)
    if isinstance(value, (str, bytes)):
        return (math.nan,)
    return tuple(_number(part) for part in (value if hasattr(value, "__iter__") else [value]))


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
    try:
        return tuple(dataset.get(keyword) or ())
    except Exception:  # a broken sequence is as good as none
        return ()


def _item(dataset: Any, keyword: str) -> Any:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return dataset.get_item(Tag(tag)) if Tag(tag) in dataset else None


def _raw(dataset: Any, keyword: str) -> Any:
    item = _item(dataset, keyword)
    return None if item is None else item.value


def _dictionary_vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    return str(dictionary_VR(keyword))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
