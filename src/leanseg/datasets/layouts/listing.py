"""What layouts share: looking at folders, reading JSON, the meaning of labels, unique names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leanseg.datasets.case import Case
from leanseg.errors import DatasetError
from leanseg.volumes.archive import archive_of

# The key of a listing (dataset.json, labels.json) under which leanseg keeps what a case's
# metadata say, such as its patient; other programs pass over it.
METADATA = "metadata"
# Label maps are stored with 16 bits at most.
LARGEST_LABEL = 65535
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini", "lost+found")


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files and what file managers leave behind.

    Raises:
        DatasetError: If the folder cannot be looked into.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        msg = f"{folder}: cannot be looked into ({error.strerror}); check that you may read it"
        raise DatasetError(msg) from error
    return [path for path in found if not path.name.startswith(".") and path.name not in _JUNK]


def volumes_in(folder: Path) -> list[Path]:
    """The volume files that lie in a folder, by their names, sorted."""
    from leanseg.volumes import is_volume_path

    return [path for path in entries(folder) if is_volume_path(path) and path.is_file()]


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: If it cannot be read, or is not valid JSON (names line and column).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        msg = f"{path}: brackets are nested too deeply; correct the file"
        raise DatasetError(msg) from error
    except json.JSONDecodeError as error:
        msg = (
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}); correct the file"
        )
        raise DatasetError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not a text file in UTF-8; write the JSON again"
        raise DatasetError(msg) from error
    except ValueError as error:
        msg = f"{path}: holds a number that is too long; correct the file"
        raise DatasetError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); check the file"
        raise DatasetError(msg) from error


def read_object(path: Path, example: str) -> Mapping[str, Any]:
    """The content of a JSON file that holds an object.

    Args:
        path: The file.
        example: What the object may look like, for the message.

    Raises:
        DatasetError: As `read_json` does, and if the content is something else.
    """
    content = read_json(path)
    if not isinstance(content, Mapping):
        msg = f"{path}: expected an object such as {example}"
        raise DatasetError(msg)
    return content


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
        if not name.strip():
            msg = f"{path}: the label of value {value} has no name; give it one"
            raise DatasetError(msg)
        if name in labels or value in labels.values():
            shown = shortened(name)
            msg = f"{path}: label {shown} with value {value} is listed twice; make labels unique"
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
    if not 0 <= value <= LARGEST_LABEL or not isinstance(name, str):
        msg = (
            f"{path}: label {shortened(name)} has the value {shortened(written)}; "
            f"every label needs one whole number from 0 to {LARGEST_LABEL}"
        )
        raise DatasetError(msg)
    return value


def shortened(value: Any, limit: int = 80) -> str:
    """A value as it is written in Python (a path as it is), cut where it would fill a screen."""
    text = str(value) if isinstance(value, Path) else repr(value)
    # A path may hold line breaks, and parts of characters that no terminal prints.
    plain = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return "".join(plain) + ("..." if len(text) > limit else "")


def numbered_names(path: Path, key: str, listed: Any) -> tuple[str, ...]:
    """The names of `{"0": "CT", "1": "PET"}` in the order of their numbers.

    Raises:
        DatasetError: If `listed` is no such object.
    """
    if not isinstance(listed, Mapping) or not listed:
        msg = f'{path}: "{key}" must number the channels, such as {{"0": "CT"}}'
        raise DatasetError(msg)
    try:
        # As numbers: in text order channel "10" would come before "2".
        numbers = sorted(listed, key=int)
    except ValueError as error:
        keys = ", ".join(shortened(key, 20)[1:-1] for key in [*listed][:10])
        msg = f'{path}: "{key}" has the keys {keys}; use "0", "1", ...'
        raise DatasetError(msg) from error
    return tuple(str(listed[number]) for number in numbers)


def with_metadata(path: Path, listing: Mapping[str, Any], cases: Iterable[Case]) -> list[Case]:
    """The cases with what a listing says under "metadata" added to their own.

    Raises:
        DatasetError: If the entry does not give texts for cases that exist.
    """
    cases = list(cases)
    listed = listing.get(METADATA, {})
    names = {case.name for case in cases}
    good = isinstance(listed, Mapping) and all(
        name in names
        and isinstance(facts, Mapping)
        and all(isinstance(fact, str) for fact in facts.values())
        for name, facts in listed.items()
    )
    if not good:
        msg = (
            f'{path}: "{METADATA}" must give texts for cases of the dataset, '
            'such as {"case_1": {"patient": "1"}}'
        )
        raise DatasetError(msg)
    return [
        replace(case, metadata={**case.metadata, **listed.get(case.name, {})}) for case in cases
    ]


def kept_metadata(cases: Iterable[Case], besides: str = "") -> dict[str, dict[str, str]]:
    """What `with_metadata` reads back.

    Args:
        cases: Of the dataset that is written.
        besides: A key that the listing tells in another way.
    """
    facts = {case.name: dict(case.metadata) for case in cases}
    for known in facts.values():
        known.pop(besides, None)
    return {name: known for name, known in facts.items() if known}


def is_there(path: Path) -> bool:
    """Whether a file, or the zip file that a path leads into, exists."""
    try:
        return path.is_file() or archive_of(path) is not None
    except OSError:
        # A name that is too long, or a folder that may not be looked into.
        return False


def require_files(source: Path, files: Sequence[Path]) -> None:
    """Check that every listed file is there.

    Raises:
        DatasetError: Naming the first three that are not, and how many there are.
    """
    missing = [file for file in files if not is_there(file)]
    if missing:
        shown = ", ".join(shortened(file, 1000) for file in missing[:3])
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
            shown = shortened(name)
            msg = f"{source}: {count} cases are called {shown}; give every scan its own name"
            raise DatasetError(msg)
    return tuple(sorted(cases, key=lambda case: case.name))
