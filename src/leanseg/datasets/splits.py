"""Splits: which cases train and which validate. Sorted first, so file order plays no part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.labels import without_ignore
from leanseg.datasets.split_files import Split, require_once
from leanseg.errors import DatasetError
from leanseg.volumes import reorient

KINDS = ("random", "k-fold", "leave-one-out", "contiguous", "stratified")
# The cases of one patient.
_Group: TypeAlias = tuple[str, ...]


def split(
    data: Dataset,
    kind: str = "k-fold",
    *,
    n_folds: int = 5,
    train_fraction: float = 0.7,
    seed: int = 0,
    by: str | None = None,
) -> list[Split]:
    """Splits of a dataset's labelled cases; all cases of a patient stay on one side.

    Args:
        data: The dataset; `metadata["patient"]` of its cases tells patients.
        kind: As in `split_cases`; "contiguous" sorts by number of axial slices, then by slice
            thickness, "stratified" by the volume of a label. Both read the files for it.
        n_folds: As in `split_cases`, like the next two.
        train_fraction: Of "random".
        seed: Of all that is drawn.
        by: Of "stratified": the label whose volume counts; the last one if not given.

    Raises:
        DatasetError: If there are too few cases or patients, or no such label or kind.

    Example:
        >>> pair = (np.zeros((4, 4, 4), np.int16), np.eye(4))
        >>> cases = [leanseg.Case(pair, pair, name) for name in "abcde"]
        >>> data = leanseg.Dataset(cases, labels={"liver": 1})
        >>> [fold.validation for fold in leanseg.split(data, "leave-one-out")][:2]
        [('a',), ('b',)]
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
    return split_cases(
        [case.name for case in cases],
        kind,
        n_folds=n_folds,
        train_fraction=train_fraction,
        seed=seed,
        patients=patients_of(cases),
        measured=measured,
    )


def patients_of(cases: Iterable[Case]) -> dict[str, str]:
    """Case name to patient, for the cases whose layout knows it."""
    return {case.name: case.metadata["patient"] for case in cases if "patient" in case.metadata}


def slices_of(case: Case, orientation: str = "LPS") -> tuple[float, float]:
    """Number of slices along the third axis of an orientation, then their distance in mm."""
    image = reorient(case.image, orientation)
    return float(image.shape[2]), image.spacing_mm[2]


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
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
    measured: Mapping[str, Any] | None = None,
) -> list[Split]:
    """Splits of cases by name; cases that share a patient stay on one side.

    - "random": one split. Paper 000 trains on 70 % of the cases: 24 cases give 17 and 7. Its 281
      scans of the pancreas give 197 and 84 here; for its 196 and 85 ask for 196 / 281.
    - "k-fold": every case validates once, and the folds are as even as patients allow.
    - "leave-one-out": each case (or patient) validates alone, as in paper 004.
    - "contiguous": blocks of cases sorted by what is measured, as in paper 002. Each fold
      validates on sizes that its training has not seen, so the spread over folds tells how
      quality depends on the size of a volume. A patient stands where its first case does.
    - "stratified": cases sorted by what is measured are dealt out in rounds, each in random
      order, so that every fold holds large and small. A patient counts with its largest.

    Args:
        names: Case names, in any order.
        kind: One of the above.
        n_folds: Of "k-fold", "contiguous" and "stratified".
        train_fraction: Of "random": the part of the cases that trains, at least one and not all;
            as near as patients allow.
        seed: The same seed and the same set of names give the same splits.
        patients: Case name to patient, for cases that share one.
        measured: Case name to what "contiguous" and "stratified" sort by.

    Raises:
        DatasetError: If there is no such kind, too few cases or patients, a name occurs twice, or
            a number is out of its range.
    """
    if kind not in KINDS:
        raise DatasetError(f"there is no split {kind!r}; choose one of {', '.join(KINDS)}")
    if n_folds < 2:
        raise DatasetError(f"{n_folds} folds make no cross-validation; choose 2 or more")
    if not 0 < train_fraction < 1:
        raise DatasetError(f"train_fraction is {train_fraction}; choose a number between 0 and 1")
    if seed < 0:
        raise DatasetError(f"seed is {seed}; choose a whole number from 0 on")
    groups = _groups(names, patients or {}, 2 if kind in ("random", "leave-one-out") else n_folds)
    generator = np.random.default_rng(seed)
    if kind == "random":
        return [_random(groups, train_fraction, generator)]
    if kind == "leave-one-out":
        return _folds([[group] for group in groups])
    if kind == "contiguous":
        return _folds(_blocks(groups, n_folds, measured or {}))
    if kind == "stratified":
        return _folds(_rounds(groups, n_folds, measured or {}, generator))
    return _folds(_even(groups, n_folds, generator))


def _groups(names: Iterable[str], patients: Mapping[str, str], at_least: int) -> list[_Group]:
    """The cases of each patient, sorted; a case of no known patient stands alone."""
    ordered = sorted(names)
    require_once(ordered, "give every case its own name")
    found: dict[tuple[bool, str], list[str]] = {}
    for name in ordered:
        # A patient may be called as another's case is.
        found.setdefault((name in patients, patients.get(name, name)), []).append(name)
    groups = [tuple(group) for group in found.values()]
    if len(groups) < at_least:
        what = "case(s)" if len(groups) == len(ordered) else "patient(s)"
        msg = f"{len(groups)} {what} cannot be split into {at_least} parts; add labelled cases"
        raise DatasetError(msg)
    return groups


def _shuffled(groups: list[_Group], generator: np.random.Generator) -> list[_Group]:
    return [groups[index] for index in generator.permutation(len(groups))]


def _random(groups: list[_Group], fraction: float, generator: np.random.Generator) -> Split:
    shuffled = _shuffled(groups, generator)
    ends = np.cumsum([len(group) for group in shuffled])
    # The cut that comes closest to the number; with one case a patient it meets it.
    cut = int(np.abs(ends[:-1] - round(fraction * ends[-1])).argmin()) + 1
    return Split(_joined(shuffled[:cut]), _joined(shuffled[cut:]))


def _even(groups: list[_Group], k: int, generator: np.random.Generator) -> list[list[_Group]]:
    """The largest patients first, each to the fold that is smallest so far."""
    folds: list[list[_Group]] = [[] for _ in range(k)]
    for group in sorted(_shuffled(groups, generator), key=len, reverse=True):
        min(folds, key=lambda fold: sum(map(len, fold))).append(group)
    return folds


def _blocks(groups: list[_Group], k: int, measured: Mapping[str, Any]) -> list[list[_Group]]:
    groups = sorted(groups, key=lambda group: min((measured[name], name) for name in group))
    blocks = np.array_split(np.arange(len(groups)), k)
    return [[groups[index] for index in block] for block in blocks]


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
    """A split for each part, which validates while all the others train."""
    parts = [_joined(groups) for groups in dealt]
    return [
        Split(tuple(name for other in parts if other is not part for name in other), part)
        for part in parts
    ]
