r"""Layouts told as patterns: where the files of a dataset lie and what they are called.

A pattern is a path below the dataset's folder, such as

    imagesTr/<case>_<channel:\d{4}>{volume}

where `<name>` stands for any text, or for what the regular expression after the colon matches;
`*` for any text; the part `**` for any number of folders; `{volume}` for the suffix of a volume
file. A pattern that ends in "/" is of folders, the empty one of the dataset's folder itself. Upper
and lower case are alike. Hidden files and what file managers leave behind are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from leanseg.errors import DatasetError
from leanseg.volumes import VOLUME_SUFFIXES

_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini", "lost+found")
_WILDCARD = re.compile(r"(<[^>]+>|\*|\{volume\})")
_ANY_VOLUME = "|".join(re.escape(suffix) for suffix in VOLUME_SUFFIXES)


@dataclass(frozen=True)
class Found:
    """A file or folder that a pattern matches.

    Attributes:
        path: Where it lies.
        fields: What stands in the pattern's named places.
    """

    path: Path
    fields: Mapping[str, str]


def find(folder: Path, *patterns: str) -> list[Found]:
    """What lies below a folder as any of the patterns says, in their order, then by name.

    Raises:
        DatasetError: If a folder cannot be looked into.
    """
    found: dict[Path, Found] = {}
    for pattern in patterns:
        for match in _matches(folder, pattern.split("/"), {}):
            found.setdefault(match.path, match)
    return list(found.values())


def _matches(folder: Path, parts: Sequence[str], fields: Mapping[str, str]) -> Iterator[Found]:
    part, *rest = parts
    if not part:
        yield Found(folder, fields)
        return
    if part == "**":
        yield from _matches(folder, rest, fields)
        for inner in entries(folder):
            # A link may lead back up.
            if inner.is_dir() and not inner.is_symlink():
                yield from _matches(inner, parts, fields)
        return
    for entry in entries(folder):
        match = _expression(part).fullmatch(entry.name)
        if match is None:
            continue
        both = {**fields, **match.groupdict()}
        if rest and entry.is_dir():
            yield from _matches(entry, rest, both)
        elif not rest and entry.is_file():
            yield Found(entry, both)


@lru_cache(maxsize=1024)
def _expression(part: str) -> re.Pattern[str]:
    """A regular expression for one part of a pattern."""
    text = ""
    for token in _WILDCARD.split(part):
        if token == "*":
            text += ".*"
        elif token == "{volume}":
            text += f"(?:{_ANY_VOLUME})"
        elif token.startswith("<"):
            name, _, rule = token[1:-1].partition(":")
            text += f"(?P<{name}>{rule or '.+'})"
        else:
            text += re.escape(token)
    # A name may hold a line break.
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files and what file managers leave behind.

    Raises:
        DatasetError: If the folder cannot be looked into.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        msg = f"{folder}: cannot be opened ({error.strerror}); check that you may read it"
        raise DatasetError(msg) from error
    return [path for path in found if not path.name.startswith(".") and path.name not in _JUNK]


def only(paths: Sequence[Path], what: str) -> Path | None:
    """The one path that was found, if there is one.

    Raises:
        DatasetError: If there are several, which are all `what`.
    """
    if len(paths) > 1:
        raise DatasetError(f"{paths[0]} and {paths[1]} are both {what}; keep one of the two")
    return paths[0] if paths else None


def by_name(files: Iterable[tuple[str, Path]], what: str) -> dict[str, Path]:
    """Files by name.

    Args:
        files: Names and paths.
        what: What they are, such as "scans".

    Raises:
        DatasetError: If two have the same name.
    """
    found: dict[str, Path] = {}
    for name, path in files:
        if name in found:
            msg = f"{found[name]} and {path} are both {what} called {name!r}; keep one of the two"
            raise DatasetError(msg)
        found[name] = path
    return found
