"""Splits: which cases train, monitor and test. Sorted first, so file order plays no part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.labels import without_ignore
from leanseg.datasets.split_files import Split, require_once
from leanseg.errors import DatasetError
from leanseg.volumes import is_volume_path, open_volume

KINDS = ("random", "k-fold", "sequential", "leave-one-out", "contiguous", "stratified", "stated")
# The cases of one patient.
_Group: TypeAlias = tuple[str, ...]


def split(
    data: Dataset,
    kind: str = "k-fold",
    *,
    n_folds: int = 5,
    train_fraction: float = 0.7,
    monitor_fraction: float = 0.1,
    seed: int = 0,
    by: str | None = None,
) -> list[Split]:
    """Splits of a dataset's labelled cases into train, monitor and test, by whole patients.

    Args:
        data: The dataset; `metadata["patient"]` of its cases tells patients.
        kind: As in `split_cases`; "contiguous" sorts by number of axial slices, then by slice
            thickness, "stratified" by the volume of a label: both read the files for it; "stated"
            goes by `metadata["fold"]`.
        n_folds: As in `split_cases`, like the next three.
        train_fraction: Of "random".
        monitor_fraction: Of the cases that do not test.
        seed: Of all that is drawn.
        by: Of "stratified": the label whose volume counts; the last one if not given.

    Raises:
        DatasetError: If there are too few cases or patients, or no such label or kind.

    Example:
        >>> pair = (np.zeros((4, 4, 4), np.int16), np.eye(4))
        >>> cases = [leanseg.Case(pair, pair, name) for name in "abcde"]
        >>> data = leanseg.Dataset(cases, labels={"liver": 1})
        >>> [fold.test for fold in leanseg.split(data, "leave-one-out")][:2]
        [('a',), ('b',)]
        >>> fold = leanseg.split(data, "leave-one-out")[0]
        >>> len(fold.train), len(fold.monitor)
        (3, 1)
    """
    cases = [case for case in data if case.label_parts]
    measured: dict[str, Any] = {}
    if kind == "contiguous":
        measured = {case.name: slices_of(case) for case in cases}
    if kind == "stratified":
        labels = without_ignore(data.labels)
        label = next(reversed(labels), "") if by is None else by
        if label not in labels:
            known = ", ".join(labels)
            raise DatasetError(f"there is no label {label!r} to split by; choose one of {known}")
        measured = {case.name: volume_ml(case, [labels[label]]) for case in cases}
    if kind == "stated":
        measured = folds_of(cases)
    return split_cases(
        [case.name for case in cases],
        kind,
        n_folds=n_folds,
        train_fraction=train_fraction,
        monitor_fraction=monitor_fraction,
        seed=seed,
        patients=patients_of(cases),
        measured=measured,
    )


def patients_of(cases: Iterable[Case]) -> dict[str, str]:
    """Case name to patient, for the cases whose layout knows it."""
    return {case.name: case.metadata["patient"] for case in cases if "patient" in case.metadata}


def folds_of(cases: Iterable[Case]) -> dict[str, str]:
    """Case name to fold, for the cases whose dataset states one."""
    return {case.name: case.metadata["fold"] for case in cases if "fold" in case.metadata}


def slices_of(case: Case, orientation: str = "LPS") -> tuple[float, float]:
    """Number of slices along the third axis of an orientation, then their distance in mm.

    Of files that have a header it alone is read.
    """
    source = case.images[0]
    stored = source.reader == "volume" and is_volume_path(source.path)
    image = open_volume(source.path, **source.options) if stored else case.image
    pair = next(pair for pair in ("LR", "PA", "IS") if orientation[2] in pair)
    axis = next(n for n, code in enumerate(image.orientation) if code in pair)
    return float(image.shape[axis]), image.spacing_mm[axis]


def size_ranges(splits: Sequence[Split], slices: Mapping[str, float]) -> list[str]:
    """For each fold in a sentence how many slices its test cases have, by case name."""
    told = []
    for number, fold in enumerate(splits):
        sizes = sorted({int(slices[name]) for name in fold.test})
        between = " to ".join(map(str, sizes[:1] + sizes[1:][-1:]))
        told.append(f"fold {number} tests on {len(fold.test)} case(s) of {between} slices")
    return told


def volume_ml(case: Case, values: Sequence[int]) -> float:
    """Volume of what has one of some values in a case's label map, in ml."""
    label = case.label
    if label is None:
        return 0.0
    voxel_ml = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
    return float(np.isin(label.array, values).sum()) * voxel_ml


def split_cases(
    names: Iterable[str],
    kind: str = "k-fold",
    *,
    n_folds: int = 5,
    train_fraction: float = 0.7,
    monitor_fraction: float = 0.1,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
    measured: Mapping[str, Any] | None = None,
) -> list[Split]:
    """Splits of cases by name into train, monitor and test; no patient is in two of them.

    - "random": one split. Paper 000's 281 scans of the pancreas give 176, 20 and 85 cases, the
      sizes of its public code: scikit-learn rounds the 30 % that test up to 85, and a rounded
      10 % of the other 196 monitor.
    - "k-fold": every case tests once, and the folds are as even as patients allow.
    - "sequential": blocks of cases in order of name, as in OrganSegRSTN's public code: where
      they do not come out even the last ones are larger, so that its 82 scans in 4 folds are
      20, 20, 21 and 21. A patient stands where its first case does.
    - "leave-one-out": each case (or patient) tests alone, as in paper 004.
    - "contiguous": blocks of cases sorted by what is measured, as in paper 002. Each fold
      tests on sizes that its training has not seen, so the spread over folds tells how
      quality depends on the size of a volume. A patient stands where its first case does.
    - "stratified": cases sorted by what is measured are dealt out in rounds, each in random
      order, so that every fold holds large and small. A patient counts with its largest.
    - "stated": the folds that the dataset comes with. A patient is where its first case is; what
      has no fold takes no part.

    In every kind, `draw_monitor` takes the monitor part from the cases that do not test.

    Args:
        names: Case names, in any order.
        kind: One of the above.
        n_folds: Of "k-fold", "sequential", "contiguous" and "stratified".
        train_fraction: Of "random": the part of the cases that does not test, rounded down; as
            near as patients and parts that may not be empty allow. With 1 nothing tests.
        monitor_fraction: Of the cases that do not test, the part that monitors: at least one
            case; 0 for none, where the last epoch is kept.
        seed: The same seed and the same set of names give the same splits.
        patients: Case name to patient, for cases that share one.
        measured: Case name to what "contiguous" and "stratified" sort by, or to the fold that is
            stated.

    Raises:
        DatasetError: If there is no such kind, too few cases or patients, a name occurs twice, or
            a number is out of its range.
    """
    if kind not in KINDS:
        raise DatasetError(f"there is no split {kind!r}; choose one of {', '.join(KINDS)}")
    if n_folds < 2:
        raise DatasetError(f"{n_folds} folds make no cross-validation; choose 2 or more")
    if not 0 < train_fraction <= 1:
        raise DatasetError(f"train_fraction is {train_fraction}; choose a number above 0, up to 1")
    if seed < 0:
        raise DatasetError(f"seed is {seed}; choose a whole number from 0 on")
    groups = _groups(names, patients or {})
    if kind == "stated":
        folds = _folds(_stated(groups, measured or {}))
        return draw_monitor(folds, monitor_fraction, seed=seed, patients=patients)
    # Of what does not test, training and monitoring need one patient each.
    n_others = 2 if monitor_fraction > 0 else 1
    generator = np.random.default_rng(seed)
    if kind == "random" and train_fraction == 1:
        everything = [Split(_joined(groups), (), ())]
        return draw_monitor(everything, monitor_fraction, seed=seed, patients=patients)
    if kind in ("random", "leave-one-out"):
        _require(
            groups, 1 + n_others, "train, monitor and test" if n_others > 1 else "train and test"
        )
    elif len(groups) < n_folds:
        msg = f"{_counted(groups)} cannot make {n_folds} folds; add labelled cases, or choose fewer"
        raise DatasetError(msg)
    if kind == "random":
        n_cases = sum(map(len, groups))
        # 0.7 of 10 may be a little less than 7.
        n_test = n_cases - math.floor(train_fraction * n_cases + 1e-9)
        test, others = _drawn(groups, n_test, n_others, generator)
        folds = [Split(_joined(others), (), _joined(test))]
    elif kind == "leave-one-out":
        folds = _folds([[group] for group in groups])
    elif kind == "sequential":
        folds = _folds(_in_order(groups, n_folds))
    elif kind == "contiguous":
        folds = _folds(_blocks(groups, n_folds, measured or {}))
    elif kind == "stratified":
        folds = _folds(_rounds(groups, n_folds, measured or {}, generator))
    else:
        folds = _folds(_even(groups, n_folds, generator))
    return draw_monitor(folds, monitor_fraction, seed=seed, patients=patients)


def draw_monitor(
    splits: Sequence[Split],
    fraction: float = 0.1,
    *,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
) -> list[Split]:
    """Splits with a monitor part, drawn from the train part where there is none yet.

    Args:
        splits: As read or made.
        fraction: Of the train part's cases, rounded, as near as whole patients allow; at least
            one case, unless it is 0.
        seed: The same seed and the same splits give the same draw.
        patients: Case name to patient, for cases that share one.

    Raises:
        DatasetError: If the fraction is out of its range, or a train part is of one patient.
    """
    if not 0 <= fraction < 1:
        msg = f"monitor_fraction is {fraction}; choose a number from 0 on and less than 1"
        raise DatasetError(msg)
    if fraction == 0:
        return list(splits)
    # Not the numbers that dealt the folds.
    generator = np.random.default_rng([seed, 1])
    drawn = []
    for number, split in enumerate(splits):
        if split.monitor:
            drawn.append(split)
            continue
        groups = _groups(split.train, patients or {})
        _require(groups, 2, f"the train and monitor parts of fold {number}")
        monitor, train = _drawn(groups, round(fraction * len(split.train)), 1, generator)
        drawn.append(Split(_joined(train), _joined(monitor), split.test))
    return drawn


def _groups(names: Iterable[str], patients: Mapping[str, str]) -> list[_Group]:
    """The cases of each patient, sorted; a case of no known patient stands alone."""
    ordered = sorted(names)
    require_once(ordered, "give every case its own name")
    found: dict[tuple[bool, str], list[str]] = {}
    for name in ordered:
        # A patient may be called as another's case is.
        found.setdefault((name in patients, patients.get(name, name)), []).append(name)
    return [tuple(group) for group in found.values()]


def _counted(groups: Sequence[_Group]) -> str:
    single = all(len(group) == 1 for group in groups)
    return f"{len(groups)} {'case(s)' if single else 'patient(s)'}"


def _require(groups: Sequence[_Group], at_least: int, parts: str) -> None:
    """Refuse fewer patients than parts.

    Raises:
        DatasetError: Saying how many are needed.
    """
    if len(groups) < at_least:
        fewer = (
            ", or set split.monitor_fraction: 0 with selection: last, which needs one fewer"
            if "monitor" in parts
            else ""
        )
        raise DatasetError(
            f"{_counted(groups)} cannot be split into {parts}: {at_least} are needed; add "
            f"labelled cases{fewer}"
        )


def _shuffled(groups: list[_Group], generator: np.random.Generator) -> list[_Group]:
    return [groups[index] for index in generator.permutation(len(groups))]


def _drawn(
    groups: list[_Group], n_cases: int, n_others: int, generator: np.random.Generator
) -> tuple[list[_Group], list[_Group]]:
    """Patients with about so many cases together, at least one patient; and so many others."""
    shuffled = _shuffled(groups, generator)
    drawn: list[_Group] = []
    left = n_cases
    for group in shuffled:
        # A patient with many cases is passed over where it would overshoot.
        if len(groups) - len(drawn) > n_others and abs(left - len(group)) < abs(left):
            drawn.append(group)
            left -= len(group)
    chosen = set(drawn or [min(shuffled, key=len)])
    return sorted(chosen), [group for group in groups if group not in chosen]


def _even(groups: list[_Group], k: int, generator: np.random.Generator) -> list[list[_Group]]:
    """The largest patients first, each to the fold that is smallest so far."""
    folds: list[list[_Group]] = [[] for _ in range(k)]
    for group in sorted(_shuffled(groups, generator), key=len, reverse=True):
        min(folds, key=lambda fold: sum(map(len, fold))).append(group)
    return folds


def _in_order(groups: list[_Group], k: int) -> list[list[_Group]]:
    size, n_larger = divmod(len(groups), k)
    starts = [size * fold + max(fold - (k - n_larger), 0) for fold in range(k + 1)]
    return [groups[start:stop] for start, stop in pairwise(starts)]


def _blocks(groups: list[_Group], k: int, measured: Mapping[str, Any]) -> list[list[_Group]]:
    groups = sorted(groups, key=lambda group: min((measured[name], name) for name in group))
    blocks = np.array_split(np.arange(len(groups)), k)
    return [[groups[index] for index in block] for block in blocks]


def _stated(groups: list[_Group], stated: Mapping[str, Any]) -> list[list[_Group]]:
    """The patients of each fold.

    Raises:
        DatasetError: If fewer than two folds are stated.
    """
    folds: dict[str, list[_Group]] = {}
    for group in groups:
        found = [str(stated[name]) for name in group if name in stated]
        if found:
            folds.setdefault(found[0], []).append(group)
    if len(folds) < 2:
        raise DatasetError(
            f"the cases' metadata state {len(folds)} fold(s), but a split needs 2 or more; state "
            "them, such as in a table's column 'fold', or choose another kind of split"
        )
    return [folds[fold] for fold in sorted(folds, key=lambda fold: (len(fold), fold))]


def _rounds(
    groups: list[_Group], k: int, measured: Mapping[str, Any], generator: np.random.Generator
) -> list[list[_Group]]:
    groups = sorted(groups, key=lambda group: (max(measured[name] for name in group), group))
    folds: list[list[_Group]] = [[] for _ in range(k)]
    for start in range(0, len(groups), k):
        for group, fold in zip(groups[start : start + k], generator.permutation(k), strict=False):
            folds[fold].append(group)
    return folds


def _joined(groups: Iterable[_Group]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group)


def _folds(dealt: Iterable[Sequence[_Group]]) -> list[Split]:
    """A split for each block of patients, which tests while all the others train."""
    parts = [_joined(groups) for groups in dealt]
    return [
        Split(tuple(name for other in parts if other is not part for name in other), (), part)
        for part in parts
    ]
