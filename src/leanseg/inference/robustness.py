"""A model on every labelled case of a dataset, again and again under controlled change."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, Dataset, find_label, is_ignore, load_case
from leanseg.errors import DatasetError, LeansegError, told
from leanseg.evaluation.changes import Factor, Labelled, choose_factors
from leanseg.evaluation.labels import LabelValues, normalise_labels, require_not_ignored
from leanseg.evaluation.masks import mask_pair
from leanseg.evaluation.overlap import Counts
from leanseg.evaluation.robustness import UNCHANGED, LevelScore, Robustness
from leanseg.frames import cases_sha256
from leanseg.inference.inputs import channels_by_name
from leanseg.inference.model import Model
from leanseg.volumes import on_grid_of, reorient

# A factor that stores the very same scan in another way.
_SAME_LABELS = "orientation"


def robustness(
    model: Model,
    dataset: Dataset,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    *,
    factors: Sequence[str] | None = None,
    seed: int = 0,
    ignored_values: Sequence[int] = (),
    on_begin: Callable[[int], Callable[[str], None]] = lambda total: lambda name: None,
) -> Robustness:
    """Find what controlled changes of scans do to a model's Dice.

    Args:
        model: Any.
        dataset: Cases without labels are left out.
        labels: Some of the model's labels to the value in the label maps, or the values merged
            into it; None takes those of the dataset that have the same names.
        factors: Names of `leanseg.evaluation.changes.FACTORS`; None for all.
        seed: Noise is drawn by it, case, factor and level.
        ignored_values: Values of voxels of which nothing is known, besides those of a label
            called "ignore".
        on_begin: Called with the number of predictions; what it returns is called with the case's
            name after each of them.

    Raises:
        LeansegError: If a factor is not known, model and data have no label in common, or no case
            can be used; or a scan cannot be read.

    Example:
        >>> found = robustness(leanseg.load_model("model.leanseg"), leanseg.open_dataset("data"))
        >>> found.summary["noise"]["liver"]["levels"]["20 HU"]["difference"]  # doctest: +SKIP
    """
    chosen = choose_factors(factors, hounsfield=model.plan.is_ct)
    values, ignored = choose_labels(model, dataset, labels, ignored_values)
    cases = labelled_cases(dataset, values)
    channels = None
    if tuple(dataset.channels) != model.plan.channels:
        channels = channels_by_name(dataset.root, dataset.channels, model.plan)
    scores: list[LevelScore] = []
    on_step = on_begin(len(cases) * (1 + sum(len(each.levels) for each in chosen.values())))
    left_out: Counter[tuple[str, str]] = Counter()
    for case in cases:
        scores += _Case(model, case, dataset, values, ignored, channels).scores(
            chosen, seed, left_out, on_step
        )
    notes = []
    if n_without := len(dataset.cases) - len(cases):
        notes.append(f"{n_without} case(s) without the labels are left out")
    known = {case.name for case in cases} & {*model.file.provenance.training_cases}
    if known:
        notes.append(
            f"{len(known)} case(s) have the names of cases that trained the model; Dice "
            "on new scans may be lower"
        )
    for (factor, level), n in left_out.items():
        notes.append(f"{factor}, {level}: left out for {n} case(s), whose scan is too small for it")
    return Robustness(
        tuple(values),
        chosen,
        tuple(scores),
        dataset.name,
        cases_sha256(cases),
        seed,
        tuple(notes),
    )


def choose_labels(
    model: Model,
    dataset: Dataset,
    labels: Mapping[str, int | Sequence[int]] | None,
    ignored_values: Sequence[int],
) -> tuple[LabelValues, list[int]]:
    """The values in the label maps of each label to score, and the ignored ones.

    Raises:
        LeansegError: If no case has labels, a label that is given is none of the model's, or none
            is common to both.
    """
    names = model.plan.labels
    if not any(case.label_parts for case in dataset.cases):
        raise DatasetError(
            f"{dataset.root}: no case has labels to compare with; give scans with their labels"
        )
    given = normalise_labels(labels if labels is not None else dict(dataset.labels))
    if labels is not None:
        for name in given:
            if find_label(name, names) is None:
                raise LeansegError(
                    f"{model.file.path or 'the model'}: has no label {name!r}, but "
                    f"{', '.join(map(told, names))}; name some of these with --labels"
                )
    own = {name: given[found] for name in names if (found := find_label(name, given)) is not None}
    if not own:
        raise DatasetError(
            f"{dataset.root}: has none of the model's labels {', '.join(map(told, names))}, but "
            f"{', '.join(map(told, given))}; give their values with --labels, such as {names[0]}=1"
        )
    # What lies inside a label belongs to it.
    values = {
        name: tuple(sorted({v for n in numbers for v in own.get(names[n - 1], ())}))
        for name, numbers in model.label_values.items()
        if name in own
    }
    known = {value for each in own.values() for value in each}
    ignored = {v for name, v in dataset.labels.items() if is_ignore(name)} - known
    ignored.update(ignored_values)
    require_not_ignored(values, sorted(ignored))
    return values, sorted(ignored)


def labelled_cases(dataset: Dataset, values: LabelValues) -> list[Case]:
    """The cases that annotate at least one of the labels.

    Raises:
        DatasetError: If there is none.
    """
    cases = [
        case
        for case in dataset.cases
        if any(annotates(case, dataset, each) for each in values.values())
    ]
    if not cases:
        raise DatasetError(
            f"{dataset.root}: no case annotates {' or '.join(map(told, values))}; give scans with "
            "their labels"
        )
    return cases


def annotates(case: Case, dataset: Dataset, values: Sequence[int]) -> bool:
    """Whether a case annotates all of some values of the dataset's label maps."""
    known = {value: name for name, value in dataset.labels.items()}
    return bool(case.label_parts) and all(
        value not in known or case.annotates(known[value]) for value in values
    )


class _Case:
    """One case, as it is and changed."""

    def __init__(
        self,
        model: Model,
        case: Case,
        dataset: Dataset,
        values: LabelValues,
        ignored: Sequence[int],
        channels: Sequence[int] | None,
    ) -> None:
        self._model, self._name, self._ignored = model, case.name, ignored
        self._values, self._channels = values, channels
        self._unknown = [n for n, each in values.items() if not annotates(case, dataset, each)]
        image, label = load_case(case)
        assert label is not None  # there is one, or the case would have been left out
        self._scan = Labelled(image, label)

    def scores(
        self,
        factors: Mapping[str, Factor],
        seed: int,
        left_out: Counter[tuple[str, str]],
        on_step: Callable[[str], None],
    ) -> list[LevelScore]:
        """The scan as it is, for each factor, and at its levels."""
        before, dice = self._predicted(self._scan)
        on_step(self._name)
        codes = self._model.plan.for_scan(self._scan.image.orientation).final.frame.orientation
        turned = self._scan.each(lambda one: reorient(one, codes))
        found = []
        for name, factor in factors.items():
            value = factor.value(turned.image)
            found.append(LevelScore(self._name, name, UNCHANGED, value, dice))
            for level, amount in factor.levels.items():
                generator = _generator(seed, self._name, name, level)
                changed = factor.change(turned, amount, generator)
                if changed is None:
                    left_out[name, level] += 1
                else:
                    after, dice_after = self._predicted(changed)
                    differ = None
                    if name == _SAME_LABELS:
                        back = on_grid_of(self._scan.image, changed.label.with_array(after))
                        differ = int(np.count_nonzero(back.array != before))
                    value = factor.value(changed.image, level)
                    found.append(LevelScore(self._name, name, level, value, dice_after, differ))
                on_step(self._name)
        return found

    def _predicted(self, scan: Labelled) -> tuple[NDArray[Any], dict[str, float | None]]:
        """The labels on the scan's grid, and the Dice of each."""
        predicted = self._model.predict(scan.image, channel_indices=self._channels).array
        dice: dict[str, float | None] = {}
        for name, values in self._values.items():
            found = self._model.label_values[name], values
            mask, truth = mask_pair(predicted, scan.label.array, found, self._ignored)
            is_defined = name not in self._unknown and bool(truth.any())
            counts = Counts.of(mask, truth, truth.size)
            dice[name] = counts.published["dice"] if is_defined else None
        return predicted, dice


def _generator(seed: int, *names: str) -> np.random.Generator:
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
