"""One split into training and validation, and the JSON files that hold splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanseg.datasets.jsonfiles import read_json
from leanseg.errors import DatasetError
from leanseg.volumes.atomic import written_whole


@dataclass(frozen=True)
class Split:
    """Names of the cases that train and of those that validate, each sorted.

    Raises:
        DatasetError: If either is empty, or a case is in both or twice in one.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", tuple(sorted(self.train)))
        object.__setattr__(self, "validation", tuple(sorted(self.validation)))
        for part, names in (("training", self.train), ("validation", self.validation)):
            if not names:
                msg = f"a split needs at least one {part} case"
                raise DatasetError(msg)
            require_once(names, f"listed twice for {part}; list it once")
        both = sorted(set(self.train) & set(self.validation))
        if both:
            msg = f"case {both[0]!r} is in both training and validation; keep it in one of them"
            raise DatasetError(msg)


def read_splits(path: str | Path, names: Collection[str] | None = None) -> list[Split]:
    """Splits from JSON: a list of `{"train": [...], "validation": [...]}`.

    nnU-Net's key "val" is accepted for "validation".

    Args:
        path: The file.
        names: The dataset's cases; where given, splits may not name others.

    Raises:
        DatasetError: If the file is missing or not such a list, a case is unknown, or a case is
            in both parts of a split.
    """
    path = Path(path)
    listed = read_json(path)
    if not isinstance(listed, list) or not listed:
        msg = f'{path}: expected a list such as [{{"train": [...], "validation": [...]}}]'
        raise DatasetError(msg)
    splits = [_parse(path, number, entry) for number, entry in enumerate(listed)]
    for number, split in enumerate(splits):
        unknown = sorted({*split.train, *split.validation} - set(names or ()))
        if names is not None and unknown:
            msg = (
                f"{path}: split {number} names {len(unknown)} case(s) that the dataset does not "
                f"have: {', '.join(unknown[:3])}; correct the names"
            )
            raise DatasetError(msg)
    return splits


def write_splits(path: str | Path, splits: Sequence[Split]) -> None:
    """Write splits as JSON, atomically: an interrupted write leaves the old file."""
    listed = [{"train": list(s.train), "validation": list(s.validation)} for s in splits]
    text = json.dumps(listed, indent=1, ensure_ascii=False) + "\n"
    with written_whole(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_once(names: Iterable[str], sentence: str) -> None:
    """Check that no name occurs twice; the sentence says what is wrong if one does.

    Raises:
        DatasetError: Naming the first that does.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        msg = f"case {twice[0]!r} is {sentence}"
        raise DatasetError(msg)


def _parse(path: Path, number: int, entry: Any) -> Split:
    if isinstance(entry, dict):
        train, validation = entry.get("train"), entry.get("validation", entry.get("val"))
        lists = [
            part
            for part in (train, validation)
            if isinstance(part, list) and all(isinstance(name, str) for name in part)
        ]
        if len(lists) == 2:
            try:
                return Split(tuple(lists[0]), tuple(lists[1]))
            except DatasetError as error:
                msg = f"{path}: split {number}: {error}"
                raise DatasetError(msg) from error
    msg = f'{path}: split {number} needs "train" and "validation", each a list of case names'
    raise DatasetError(msg)
