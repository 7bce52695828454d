"""One split into training and validation, and the JSON files that hold splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, RootModel

from leanseg.errors import DatasetError
from leanseg.files import read_listing, write_json


@dataclass(frozen=True)
class Split:
    """Names of the cases that train and of those that validate, each sorted.

    Raises:
        DatasetError: If either is empty, or a case is in both or twice in one.
    """

    train: tuple[str, ...]
    # nnU-Net calls it "val".
    validation: Annotated[
        tuple[str, ...], Field(validation_alias=AliasChoices("validation", "val"))
    ]

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", tuple(sorted(self.train)))
        object.__setattr__(self, "validation", tuple(sorted(self.validation)))
        for part, names in (("training", self.train), ("validation", self.validation)):
            if not names:
                raise DatasetError(f"a split needs at least one {part} case")
        require_once((*self.train, *self.validation), "list it once, in one part")


class _Listing(RootModel[Annotated[list[Split], Field(min_length=1)]]):
    pass


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
    splits = read_listing(path, _Listing).root
    for number, split in enumerate(splits):
        unknown = sorted({*split.train, *split.validation} - set(names or ()))
        if names is not None and unknown:
            raise DatasetError(
                f"{path}: split {number} names {len(unknown)} case(s) that the dataset does not "
                f"have: {', '.join(unknown[:3])}; correct the names"
            )
    return splits


def write_splits(path: str | Path, splits: Sequence[Split]) -> None:
    """Write splits as JSON, atomically: an interrupted write leaves the old file."""
    write_json(Path(path), [asdict(split) for split in splits])


def require_once(names: Iterable[str], advice: str) -> None:
    """Check that no name occurs twice.

    Raises:
        DatasetError: Naming the first that does, with the advice.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DatasetError(f"case {twice[0]!r} is listed twice; {advice}")
