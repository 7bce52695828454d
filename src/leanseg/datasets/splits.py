"""Splits: which cases train and which validate. Sorted first, so file order plays no part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.split_files import Split, require_once
from leanseg.errors import DatasetError
from leanseg.volumes import reorient

KINDS = ("random", "k-fold", "leave-one-out", "contiguous", "stratified")


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
        kind: "random" (one split), "k-fold", "leave-one-out", "contiguous" (blocks of cases sorted
            by their number of axial slices, which are read for it) or "stratified" (small and
            large lesions in every fold).
        n_folds: Of "k-fold", "contiguous" and "stratified".
        train_fraction: Of "random".
        seed: The same seed and the same cases give the same splits.
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
    label = by or next(reversed([*data.labels]), "")
    if kind == "stratified" and label not in data.labels:
        msg = f"there is no label {label!r} to split by; choose one of {', '.join(data.labels)}"
        raise DatasetError(msg)
    return split_cases(
        [case for case in data if case.label_parts],
        kind,
        n_folds=n_folds,
        train_fraction=train_fraction,
        seed=seed,
        amount=lambda case: volume_ml(case, [data.labels[label]]),
    )


def split_cases(
    cases: Sequence[Case],
    kind: str,
    *,
    n_folds: int,
    train_fraction: float,
    seed: int,
    amount: Callable[[Case], float],
    orientation: str = "LPS",
) -> list[Split]:
    """Splits as `split` makes them.

    Args:
        cases: All of them labelled.
        kind: As in `split`.
        n_folds: As in `split`.
        train_fraction: As in `split`.
        seed: As in `split`.
        amount: Of "stratified": the volume that counts, of each case.
        orientation: Of "contiguous": the third axis is that of the slices which are counted.

    Raises:
        DatasetError: If there are too few cases or patients, or no such kind.
    """
    names = [case.name for case in cases]
    patients = {c.name: c.metadata["patient"] for c in cases if "patient" in c.metadata}
    if kind == "random":
        return [random_split(names, train_fraction, seed, patients=patients)]
    if kind == "k-fold":
        return k_folds(names, n_folds, seed, patients)
    if kind == "leave-one-out":
        return leave_one_out(names, patients)
    if kind == "contiguous":
        sizes = {case.name: slices_of(case, orientation) for case in cases}
        return contiguous_folds(sizes, n_folds, patients)
    if kind == "stratified":
        amounts = {case.name: amount(case) for case in cases}
        return stratified_folds(amounts, n_folds, seed, patients)
    msg = f"there is no split {kind!r}; choose one of {', '.join(KINDS)}"
    raise DatasetError(msg)


def slices_of(case: Case, orientation: str) -> tuple[float, float]:
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


def random_split(
    names: Iterable[str],
    train_fraction: float = 0.7,
    seed: int = 0,
    n_train: int | None = None,
    patients: Mapping[str, str] | None = None,
) -> Split:
    """A seeded random split.

    Paper 000 trains on 70 % of the cases: 24 cases give 17 and 7. Its 281 scans of the pancreas
    give 197 and 84 here; the paper's 196 and 85 round the other way: ask for `n_train=196`.

    Args:
        names: Case names, in any order.
        train_fraction: Part of the cases that trains, rounded, but at least one and not all.
        seed: The same seed and the same set of names give the same split.
        n_train: Exact number of training cases, instead of the fraction.
        patients: Case name to patient, for cases that share one: they stay together, and the
            numbers hold as nearly as that allows.

    Raises:
        DatasetError: If there are fewer than two cases or patients, a name occurs twice, or the
            fraction or number leaves training or validation empty.
    """
    groups = _groups(names, patients, at_least=2)
    n_cases = sum(map(len, groups))
    if n_train is None:
        if not 0 < train_fraction < 1:
            msg = f"train_fraction is {train_fraction}; choose a number between 0 and 1"
            raise DatasetError(msg)
        n_train = min(max(round(train_fraction * n_cases), 1), n_cases - 1)
    if not 1 <= n_train < n_cases:
        msg = f"n_train is {n_train}; with {n_cases} cases choose 1 to {n_cases - 1}"
        raise DatasetError(msg)
    shuffled = _shuffled(groups, seed)
    # The cut that comes closest to the number; with one case a patient it meets it.
    ends = np.cumsum([len(group) for group in shuffled])[:-1]
    cut = int(np.abs(ends - n_train).argmin()) + 1
    return Split(_joined(shuffled[:cut]), _joined(shuffled[cut:]))


def k_folds(
    names: Iterable[str], k: int = 5, seed: int = 0, patients: Mapping[str, str] | None = None
) -> list[Split]:
    """`k` splits; every case validates in exactly one of them, and sizes differ by one at most.

    With `patients`, cases that share one stay together and sizes are as even as that allows.

    Raises:
        DatasetError: If `k` is below 2 or there are fewer than `k` cases or patients, or a name
            occurs twice.
    """
    groups = _groups(names, patients, at_least=_checked_folds(k))
    if all(len(group) == 1 for group in groups):
        shuffled = _shuffled(groups, seed)
        return _folds([shuffled[start::k] for start in range(k)])
    # The largest patients first, each to the fold that is smallest so far.
    folds: list[list[tuple[str, ...]]] = [[] for _ in range(k)]
    for group in sorted(_shuffled(groups, seed), key=len, reverse=True):
        min(folds, key=lambda fold: sum(map(len, fold))).append(group)
    return _folds(folds)


def leave_one_out(names: Iterable[str], patients: Mapping[str, str] | None = None) -> list[Split]:
    """One split a case (or patient), which alone validates: the protocol of paper 004.

    Raises:
        DatasetError: If there are fewer than two cases or patients, or a name occurs twice.
    """
    return _folds([[group] for group in _groups(names, patients, at_least=2)])


def contiguous_folds(
    sizes: Mapping[str, tuple[float, ...]], k: int = 5, patients: Mapping[str, str] | None = None
) -> list[Split]:
    """`k` blocks of cases sorted by size, not shuffled: the protocol of paper 002.

    Each fold validates on sizes that its training has not seen, so the spread over folds tells
    how quality depends on the size of a volume.

    Args:
        sizes: Case name to what it is sorted by: number of slices, then slice thickness in mm.
        k: Number of folds.
        patients: As in `k_folds`; a patient stands where its first case does.

    Raises:
        DatasetError: As `k_folds`.
    """
    groups = _groups(sizes, patients, at_least=_checked_folds(k))
    groups.sort(key=lambda group: min((*sizes[name], name) for name in group))
    return _folds([list(block) for block in _blocks(groups, k)])


def stratified_folds(
    amounts: Mapping[str, float],
    k: int = 5,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
) -> list[Split]:
    """`k` folds each of which holds small and large lesions alike.

    Cases are sorted by amount and dealt out in rounds of `k`, each round in random order.

    Args:
        amounts: Case name to the volume of its lesion, in ml.
        k: Number of folds.
        seed: Of the order within a round.
        patients: As in `k_folds`; a patient counts with its largest lesion.

    Raises:
        DatasetError: As `k_folds`.
    """
    groups = _groups(amounts, patients, at_least=_checked_folds(k))
    groups.sort(key=lambda group: (max(amounts[name] for name in group), group))
    generator = np.random.default_rng(seed)
    folds: list[list[tuple[str, ...]]] = [[] for _ in range(k)]
    for start in range(0, len(groups), k):
        for group, fold in zip(groups[start : start + k], generator.permutation(k), strict=False):
            folds[fold].append(group)
    return _folds(folds)


def _checked_folds(k: int) -> int:
    if k < 2:
        msg = f"{k} folds make no cross-validation; choose 2 or more"
        raise DatasetError(msg)
    return k


def _groups(
    names: Iterable[str], patients: Mapping[str, str] | None, at_least: int
) -> list[tuple[str, ...]]:
    """The cases of each patient, sorted; a case of no known patient stands alone."""
    ordered = sorted(names)
    require_once(ordered, "listed twice; give every case its own name")
    patients = patients or {}
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


def _shuffled(groups: list[tuple[str, ...]], seed: int) -> list[tuple[str, ...]]:
    order = np.random.default_rng(seed).permutation(len(groups))
    return [groups[index] for index in order]


def _blocks(groups: list[tuple[str, ...]], k: int) -> Iterator[list[tuple[str, ...]]]:
    """`k` runs of neighbours whose lengths differ by one at most."""
    for block in np.array_split(np.arange(len(groups)), k):
        yield [groups[index] for index in block]


def _joined(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group)


def _folds(blocks: Sequence[Sequence[tuple[str, ...]]]) -> list[Split]:
    """A split for each block, which validates while all the others train."""
    parts = [_joined(block) for block in blocks]
    return [
        Split(tuple(name for other in parts if other is not part for name in other), part)
        for part in parts
    ]
