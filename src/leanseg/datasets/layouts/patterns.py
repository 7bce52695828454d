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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.sources import LabelPart, VolumeSource
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
    return re.compile(text, re.IGNORECASE)


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


@dataclass
class CaseFiles:
    """The files of one case, as patterns find them.

    Attributes:
        name: What stands for `<case>`; the folder's name where a pattern has no such place.
        scan: The scan.
        label: The label map, if there is one.
        masks: Masks by what stands for `<label>`.
    """

    name: str
    scan: Path
    label: Path | None = None
    masks: dict[str, Path] = field(default_factory=dict)


def grouped(
    folder: Path,
    scans: Sequence[str],
    labels: Sequence[str] = (),
    masks: Sequence[str] = (),
    optional: Collection[str] = (),
) -> list[CaseFiles]:
    """The files of each case.

    Args:
        folder: The dataset.
        scans: Patterns of the scans, one a case.
        labels: Patterns of label maps, one a case at most.
        masks: Patterns of masks, one for each `<label>` of a case at most.
        optional: Cases that may have labels without a scan; they are left out then.

    Raises:
        DatasetError: If two files are the same for a case, or a label map or mask has no scan.
    """
    own = folder.resolve().name
    groups: dict[str, CaseFiles] = {}
    for found in find(folder, *scans):
        name = found.fields.get("case", own)
        if name in groups:
            raise DatasetError(_twice(groups[name].scan, found.path, f"scans of {name}"))
        groups[name] = CaseFiles(name, found.path)
    for found in find(folder, *labels, *masks):
        case, label = found.fields.get("case", own), found.fields.get("label", "")
        if case not in groups:
            if case in optional:
                continue
            msg = f"{found.path}: no scan of case {case!r} in {folder}; add it, or remove the label"
            raise DatasetError(msg)
        files = groups[case]
        known = files.masks.get(label) if label else files.label
        if known is not None:
            kind = f"masks of {label!r}" if label else f"label maps of {case}"
            raise DatasetError(_twice(known, found.path, kind))
        if label:
            files.masks[label] = found.path
        else:
            files.label = found.path
    return list(groups.values())


def _twice(first: Path, second: Path, what: str) -> str:
    other = second.name if second.parent == first.parent else second
    return f"{first} and {other} are both {what} by their names; keep one of the two"


def mask_parts(masks: Mapping[str, Path], labels: Mapping[str, int]) -> list[LabelPart]:
    """Label parts from one mask per label, later ones on top.

    Args:
        masks: Name to mask, in the order in which they are laid over each other.
        labels: Name to value in the dataset; has all of the names.
    """
    return [LabelPart(VolumeSource(path), value=labels[name]) for name, path in masks.items()]


def dataset_of(
    folder: Path,
    layout: str,
    cases: Iterable[Case],
    labels: Mapping[str, int],
    channels: Sequence[str] = ("CT",),
    name: object = None,
) -> Dataset:
    """The dataset in a folder, its cases sorted by name.

    Args:
        folder: Where it lies.
        layout: Registered name of its layout.
        cases: Its cases.
        labels: Name to value.
        channels: Their names.
        name: What its own description calls it; the folder's name if that is no text.
    """
    return Dataset(
        sorted(cases, key=lambda case: case.name),
        labels,
        channels,
        name=name if isinstance(name, str) and name else folder.resolve().name,
        root=folder,
        layout=layout,
    )
