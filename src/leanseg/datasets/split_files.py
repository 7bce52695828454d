"""One split into train, monitor and test, and the JSON files that hold splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, RootModel

from leanseg.errors import DatasetError
from leanseg.files import read_listing, write_json

# What others call the part beside "train": nnU-Net, and leanseg before there were three parts.
_OTHER_KEYS = ("val", "validation")


@dataclass(frozen=True)
class Split:
    """Names of the cases of each part, sorted: what chooses an epoch is never what is reported.

    Attributes:
        train: Cases that the network learns from.
        monitor: Cases that choose the epoch; empty where the last one is kept.
        test: Cases that are scored and reported; empty where nothing is.

    Raises:
        DatasetError: If no case trains, or a case is in two parts or twice in one.
    """

    train: tuple[str, ...]
    monitor: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for part in ("train", "monitor", "test"):
            object.__setattr__(self, part, tuple(sorted(getattr(self, part))))
        if not self.train:
            raise DatasetError("a split needs at least one train case")
        require_once((*self.train, *self.monitor, *self.test), "list it once, in one part")


def _three_parts(entry: Any) -> Any:
    """An entry of a file with this package's keys.

    In a list of two parts, the one that does not train is what is reported; beside a part called
    "test" it is what chooses the epoch.
    """
    if not isinstance(entry, Mapping):
        return entry
    second = "monitor" if "test" in entry else "test"
    renamed = {second if key in _OTHER_KEYS else key: names for key, names in entry.items()}
    if len(renamed) < len(entry):
        msg = f"the {second} part is there twice; keep one of {', '.join(map(repr, entry))}"
        raise ValueError(msg)
    return {"monitor": (), **renamed}


class _Listing(
    RootModel[Annotated[list[Annotated[Split, BeforeValidator(_three_parts)]], Field(min_length=1)]]
):
    pass


def read_splits(path: str | Path, names: Collection[str] | None = None) -> list[Split]:
    """Splits from JSON: a list of `{"train": [...], "monitor": [...], "test": [...]}`.

    The monitor part may be left out. nnU-Net's `{"train": [...], "val": [...]}` and the former
    `{"train": [...], "validation": [...]}` are read, too: their second part is the test part.
    `leanseg.datasets.draw_monitor` gives such splits a monitor part.

    Args:
        path: The file.
        names: The dataset's cases; where given, splits may not name others.

    Raises:
        DatasetError: If the file is missing or not such a list, a case is unknown, or a case is
            in two parts of a split.
    """
    path = Path(path)
    splits = read_listing(path, _Listing).root
    for number, split in enumerate(splits):
        unknown = sorted({*split.train, *split.monitor, *split.test} - set(names or ()))
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
