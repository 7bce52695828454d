"""Splits: which cases train and which validate. Sorted first, so file order plays no part."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.datasets.layouts.listing import read_json
from leanseg.errors import DatasetError


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
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                msg = f"case {twice[0]!r} is listed twice for {part}; list it once"
                raise DatasetError(msg)
        both = sorted(set(self.train) & set(self.validation))
        if both:
            msg = f"case {both[0]!r} is in both training and validation; keep it in one of them"
            raise DatasetError(msg)


def random_split(
    names: Iterable[str],
    train_fraction: float = 0.7,
    seed: int = 0,
    n_train: int | None = None,
) -> Split:
    """A seeded random split.

    Paper 000 trains on 70 % of the cases: 24 cases give 17 and 7. Its 281 scans of the pancreas
    give 197 and 84 here; the paper's 196 and 85 round the other way: ask for `n_train=196`.

    Args:
        names: Case names, in any order.
        train_fraction: Part of the cases that trains, rounded, but at least one and not all.
        seed: The same seed and the same set of names give the same split.
        n_train: Exact number of training cases, instead of the fraction.

    Raises:
        DatasetError: If there are fewer than two cases, a name occurs twice, or the fraction or
            number leaves training or validation empty.
    """
    ordered = _sorted_names(names, at_least=2)
    if n_train is None:
        if not 0 < train_fraction < 1:
            msg = f"train_fraction is {train_fraction}; choose a number between 0 and 1"
            raise DatasetError(msg)
        n_train = min(max(round(train_fraction * len(ordered)), 1), len(ordered) - 1)
    if not 1 <= n_train < len(ordered):
        msg = f"n_train is {n_train}; with {len(ordered)} cases choose 1 to {len(ordered) - 1}"
        raise DatasetError(msg)
    shuffled = _shuffled(ordered, seed)
    return Split(tuple(shuffled[:n_train]), tuple(shuffled[n_train:]))


def k_folds(names: Iterable[str], k: int = 5, seed: int = 0) -> list[Split]:
    """`k` splits; every case validates in exactly one of them, and sizes differ by one at most.

    Raises:
        DatasetError: If `k` is below 2 or there are fewer than `k` cases, or a name occurs twice.
    """
    if k < 2:
        msg = f"{k} folds make no cross-validation; choose 2 or more"
        raise DatasetError(msg)
    ordered = _sorted_names(names, at_least=k)
    shuffled = _shuffled(ordered, seed)
    folds = [shuffled[start::k] for start in range(k)]
    return [
        Split(tuple(name for name in ordered if name not in set(fold)), tuple(fold))
        for fold in folds
    ]


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
    path = Path(path)
    listed = [{"train": list(s.train), "validation": list(s.validation)} for s in splits]
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sorted_names(names: Iterable[str], at_least: int) -> list[str]:
    ordered = sorted(names)
    if len(ordered) < at_least:
        msg = f"{len(ordered)} case(s) cannot be split into {at_least} parts; add labelled cases"
        raise DatasetError(msg)
    for first, second in pairwise(ordered):
        if first == second:
            msg = f"case {first!r} is listed twice; give every case its own name"
            raise DatasetError(msg)
    return ordered


def _shuffled(ordered: list[str], seed: int) -> list[str]:
    order = np.random.default_rng(seed).permutation(len(ordered))
    return [ordered[index] for index in order]


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
