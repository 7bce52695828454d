"""`leanseg calibrate`: the temperature of probabilities, and the thresholds of reviews."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, Dataset, load_case
from leanseg.errors import DatasetError, LeansegError, told
from leanseg.evaluation.calibration import MARGIN_MM, Reliability, fit_temperature, scaled
from leanseg.evaluation.changes import Factor, Labelled, choose_factors
from leanseg.evaluation.conformal import (
    LEVEL,
    conformal_quantile,
    error_scale,
    fit_line,
    held_out_coverage,
)
from leanseg.evaluation.labels import LabelValues
from leanseg.evaluation.masks import mask_pair
from leanseg.evaluation.overlap import Counts
from leanseg.frames import cases_sha256
from leanseg.inference.facts import Facts, Look, fact_of
from leanseg.inference.inputs import channels_by_name
from leanseg.inference.model import Model
from leanseg.inference.pipeline import Pipeline, Prediction
from leanseg.inference.review import MOST_DISTANCE, distance_of, expected_dice
from leanseg.inference.robustness import annotates, choose_labels, labelled_cases
from leanseg.modelfile import (
    LabelGate,
    LabelReliability,
    ModelFile,
    ReliabilityBins,
    ReviewRecord,
    UsualRange,
)
from leanseg.volumes import Volume, reorient

# A Dice below this share of the median counts as bad where nobody says what does.
_ACCEPTABLE_SHARE: Final = 0.8
# Below this it is not taken for good without being told of.
_POOR_DICE: Final = 0.4
# Cases that the line is fitted to, with all their changes; the others tell its errors.
_MOST_FITTED: Final = 20
# Voxels that reliability and temperature are taken from, of all cases together.
_MOST_VOXELS: Final = 500_000
# What unchanged scans may exceed before somebody should look, whatever is seen in few of them.
_LEAST_REVIEW, _LEAST_REJECT = 0.25, 1.0
# Stored in another way, a scan is the same; this is not what makes results bad.
_NO_CHANGE: Final = "orientation"


@dataclass(frozen=True, eq=False)
class _Result:
    """A prediction whose reference is known.

    Attributes:
        case: Its name.
        facts: What is seen without the reference.
        confidence: By label.
        dice: By label; None where it is undefined.
    """

    case: str
    facts: Facts
    confidence: Mapping[str, float | None]
    dice: Mapping[str, float | None]


@dataclass(frozen=True)
class LabelCalibration:
    """What calibration says of one label.

    Attributes:
        before: Reliability of the probabilities as the network gives them.
        after: Under a temperature that was fitted to other cases.
        covered: How many held-out errors lie within what all others allow.
        n: Of how many.
        error: Mean absolute difference of expected and true Dice, of cases that the line was not
            fitted to; None where there is none.
        gate: The thresholds.
    """

    before: Reliability
    after: Reliability
    covered: int
    n: int
    error: float | None
    gate: LabelGate


@dataclass(frozen=True)
class Calibration:
    """What was found, and the model with it.

    Attributes:
        model: As it was, with the temperature and the thresholds.
        temperature: Of all cases together.
        labels: By name.
        n_cases: Cases that did not train the model.
        n_fitted: Those of them that the line of the expected Dice was fitted to.
        notes: What is to be said, a sentence each.
    """

    model: ModelFile
    temperature: float
    labels: Mapping[str, LabelCalibration]
    n_cases: int
    n_fitted: int
    notes: tuple[str, ...] = ()


def calibrate(
    model: Model,
    dataset: Dataset,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    *,
    acceptable: float | None = None,
    ignored_values: Sequence[int] = (),
    seed: int = 0,
    on_begin: Callable[[int], Callable[[str], None]] = lambda total: lambda name: None,
) -> Calibration:
    """Find a model's temperature, and the thresholds by which its results are reviewed.

    Cases that trained the model say what is usual, no more.

    Args:
        model: Any.
        dataset: Cases that do not annotate all of the model's labels are left out.
        labels: As in `leanseg.inference.robustness.robustness`; all of the model's are needed.
        acceptable: The Dice below which a result is bad; None for 0.8 times the label's median.
        ignored_values: Values of voxels of which nothing is known.
        seed: Of the changes, and of which cases the line is fitted to.
        on_begin: Called with the number of predictions; what it returns is called with the case's
            name after each of them.

    Raises:
        LeansegError: If labels are missing, no case can be used, all trained the model, or all of
            several results have the same Dice.

    Example:
        >>> found = calibrate(leanseg.load_model("model.leanseg"), leanseg.open_dataset("data"))
        >>> leanseg.modelfile.write_model("calibrated.leanseg", found.model)  # doctest: +SKIP
    """
    values, ignored = choose_labels(model, dataset, labels, ignored_values)
    if missing := [name for name in model.plan.labels if name not in values]:
        raise LeansegError(
            f"{dataset.root}: has no label {told(missing[0])}, which the model has; give data with "
            "all of the model's labels, or their values with --labels"
        )
    usable = labelled_cases(dataset, values)
    cases = [c for c in usable if all(annotates(c, dataset, each) for each in values.values())]
    trained = {*model.file.provenance.training_cases}
    held_out = [case.name for case in cases if case.name not in trained]
    if not held_out:
        raise DatasetError(
            f"{dataset.root}: every labelled case has the name of one that trained the model; "
            "calibrate with labelled scans that did not"
        )
    notes = []
    if n := len(dataset.cases) - len(cases):
        notes.append(f"{n} case(s) without all of the labels are left out")
    if n := len(cases) - len(held_out):
        notes.append(f"{n} case(s) trained the model and are used only for what is usual")
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(held_out).tolist()
    fitted = shuffled[: min(len(shuffled) // 2, _MOST_FITTED)]
    factors = choose_factors(None, hounsfield=model.plan.is_ct)
    changes = [
        (factor, level)
        for name, factor in factors.items()
        if name != _NO_CHANGE
        for level in _extremes(factor)
    ]
    on_step = on_begin(len(held_out) + len(fitted) * len(changes))
    measured = _Measured(model, dataset, values, ignored, generator, _MOST_VOXELS // len(held_out))
    for case in cases:
        measured.add(
            case,
            is_new=case.name not in trained,
            changes=changes if case.name in fitted else (),
            on_step=on_step,
        )
    if len(held_out) == 1:
        notes.append(
            "only one case did not train the model: the interval of the expected Dice holds for "
            "50 % of new cases; calibrate with 9 or more for 90 %"
        )
    temperature, reliability = measured.reliability()
    found = {
        name: _label_calibration(name, measured, {*fitted}, acceptable, reliability[name])
        for name in model.plan.labels
    }
    if acceptable is None:
        poor = [name for name, each in found.items() if each.gate.acceptable < _POOR_DICE]
        if poor:
            notes.append(
                f"{', '.join(poor)}: the median Dice is below {_POOR_DICE / _ACCEPTABLE_SHARE:g}, "
                "and results like it pass; say with --acceptable which Dice is good enough"
            )
    record = ReviewRecord(
        data_name=dataset.name,
        data_fingerprint=cases_sha256(cases),
        seed=seed,
        n_known=len(cases),
        scan=measured.known.usual(None),
        labels={name: each.gate for name, each in found.items()},
        reliability={
            name: LabelReliability(before=_bins(each.before), after=_bins(each.after))
            for name, each in found.items()
        },
    )
    provenance = model.file.provenance.model_copy(update={"review": record})
    file = replace(model.file, plan=model.plan.with_temperature(temperature), provenance=provenance)
    return Calibration(file, temperature, found, len(held_out), len(fitted), tuple(notes))


def _bins(found: Reliability) -> ReliabilityBins:
    return ReliabilityBins(**{name: values.tolist() for name, values in vars(found).items()})


def _extremes(factor: Factor) -> list[float]:
    """The levels of a factor that change most, to either side."""
    levels = [*factor.levels.values()]
    is_one_way = factor.sides == ("all",)
    return levels[-1:] if is_one_way else [levels[0], levels[-1]]


@dataclass
class _Known:
    """Facts of cases, and what is usual among them, all or without one."""

    _facts: dict[str, list[Facts]] = field(default_factory=dict)
    _usual: dict[tuple[str | None, str | None], dict[str, UsualRange]] = field(default_factory=dict)

    def add(self, case: str, facts: Facts) -> None:
        self._facts.setdefault(case, []).append(facts)
        self._usual.clear()

    def usual(self, label: str | None, without: str | None = None) -> dict[str, UsualRange]:
        """Of a label, or of scans."""
        key = label, without
        if key not in self._usual:
            self._usual[key] = self._ranges(label, without)
        return self._usual[key]

    def _ranges(self, label: str | None, without: str | None) -> dict[str, UsualRange]:
        found: dict[str, list[float]] = {}
        for case, several in self._facts.items():
            for facts in several if case != without else ():
                own = facts.scan if label is None else facts.labels[label]
                for name, value in own.items():
                    found.setdefault(name, []).append(fact_of(name).seen(value))
        return {name: _range(name, values) for name, values in found.items()}

    def may_be_empty(self, label: str) -> bool:
        """Whether some case has none of it."""
        return any(not facts.labels[label] for each in self._facts.values() for facts in each)

    def distance(self, label: str, result: _Result) -> float:
        """Of a result from all other cases."""
        facts, case = result.facts, result.case
        return float(
            np.hypot(
                distance_of(facts.scan, self.usual(None, case)).value,
                distance_of(facts.labels[label], self.usual(label, case)).value,
            )
        )


def _range(name: str, values: Sequence[float]) -> UsualRange:
    low, high = min(values), max(values)
    return UsualRange(low=low, high=high, spread=max(high - low, fact_of(name).spread))


@dataclass
class _Voxels:
    """Some of a case's voxels around its labels.

    Attributes:
        probabilities: (voxel, output).
        truth: The class (voxel,) of the plan.
        boxes: For each label (voxel,): whether it is near that label.
    """

    probabilities: NDArray[np.float32]
    truth: NDArray[np.intp]
    boxes: Mapping[str, NDArray[np.bool_]]


@dataclass
class _Measured:
    """All cases, one after another."""

    model: Model
    dataset: Dataset
    values: LabelValues
    ignored: Sequence[int]
    generator: np.random.Generator
    voxels_per_case: int
    known: _Known = field(default_factory=_Known)
    results: list[_Result] = field(default_factory=list)
    changed: list[_Result] = field(default_factory=list)
    voxels: list[_Voxels] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan, engines = self.model.plan.with_temperature(1), self.model.pipeline.engines
        self._pipeline = Pipeline(plan, engines)
        self._channels: Sequence[int] | None = None
        if tuple(self.dataset.channels) != plan.channels:
            self._channels = channels_by_name(self.dataset.root, self.dataset.channels, plan)

    def add(
        self,
        case: Case,
        *,
        is_new: bool,
        changes: Iterable[tuple[Factor, float]],
        on_step: Callable[[str], None],
    ) -> None:
        """A case, and its changes; one that is not new is not predicted."""
        image, label = load_case(case)
        assert label is not None
        look = self._look(image)
        self.known.add(case.name, look.facts(label.array, label.orientation, self.values))
        if not is_new:
            return
        own = Labelled(image, label)
        result, prediction = self._result(case.name, own, look, probabilities=True)
        self.results.append(result)
        self.known.add(case.name, result.facts)
        self._sample(own, prediction)
        on_step(case.name)
        codes = self.model.plan.for_scan(image.orientation).final.frame.orientation
        turned = own.each(lambda one: reorient(one, codes))
        for factor, amount in changes:
            changed = factor.change(turned, amount, self.generator)
            if changed is not None:
                found, _ = self._result(case.name, changed, self._look(changed.image))
                self.changed.append(found)
            on_step(case.name)

    def _look(self, image: Volume) -> Look:
        plan = self.model.plan
        return Look(image, plan, self._channels, is_ct=plan.is_ct)

    def _result(
        self, case: str, scan: Labelled, look: Look, *, probabilities: bool = False
    ) -> tuple[_Result, Prediction]:
        kept = np.dtype(np.float32) if probabilities else None
        found = self._pipeline.predict(scan.image, self._channels, probabilities=kept)
        labels, names = found.labels, self.model.label_values
        dice: dict[str, float | None] = {}
        for name, values in self.values.items():
            pair = names[name], tuple(values)
            mask, truth = mask_pair(labels.array, scan.label.array, pair, self.ignored)
            counts = Counts.of(mask, truth, truth.size)
            dice[name] = counts.published["dice"] if truth.any() else None
        facts = look.facts(labels.array, labels.orientation, names)
        return _Result(case, facts, found.confidence, dice), found

    def _sample(self, scan: Labelled, found: Prediction) -> None:
        """Keep some voxels of the boxes around labels."""
        assert found.probabilities is not None
        plan, label = self.model.plan, scan.label.array
        margin = np.ceil(MARGIN_MM / np.asarray(scan.label.spacing_mm)).astype(int)
        near = {}
        truth = np.zeros(label.shape, dtype=np.intp)
        # Outer regions first, so that inner ones replace them.
        for number in plan.final.outer_first:
            name = plan.labels[number - 1]
            mask, reference = mask_pair(
                found.labels.array, label, (self.model.label_values[name], tuple(self.values[name]))
            )
            truth[reference] = number
            near[name] = _box(mask | reference, margin)
        wanted = np.zeros(label.shape, dtype=bool)
        for box in near.values():
            if box is not None:
                wanted[box] = True
        if self.ignored:
            wanted &= ~np.isin(label, list(self.ignored))
        places = np.flatnonzero(wanted)
        if places.size > self.voxels_per_case:
            places = self.generator.choice(places, self.voxels_per_case, replace=False)
        indices = np.unravel_index(places, label.shape)
        self.voxels.append(
            _Voxels(
                found.probabilities.array[indices],
                truth[indices],
                {name: _within(indices, box) for name, box in near.items()},
            )
        )

    def reliability(self) -> tuple[float, dict[str, tuple[Reliability, Reliability]]]:
        """The temperature, and for each label reliability before and after.

        After under the temperature of the other half of the cases, so that no case is scored
        under one that it was fitted to.
        """
        temperature = self._temperature(self.voxels)
        halves = self.voxels[::2], self.voxels[1::2]
        others = [self._temperature(half) if half else temperature for half in halves[::-1]]
        stage, nothing = self.model.plan.final, Reliability.of(np.zeros(0), np.zeros(0, dtype=bool))
        found = {}
        for number, name in enumerate(stage.labels, start=1):
            output = number - 1 if stage.is_sigmoid else number
            before = after = nothing
            for half, own in zip(halves, others, strict=True):
                for each in half:
                    inside = each.boxes[name]
                    p, truth = each.probabilities[inside], each.truth[inside]
                    has = np.isin(truth, stage.label_values[name])
                    before += Reliability.of(p[:, output], has)
                    cooled = scaled(p, own, sigmoid=stage.is_sigmoid)
                    after += Reliability.of(cooled[:, output], has)
            found[name] = before, after
        return temperature, found

    def _temperature(self, voxels: Sequence[_Voxels]) -> float:
        stage = self.model.plan.final
        p = np.concatenate([each.probabilities for each in voxels])
        truth = np.concatenate([each.truth for each in voxels])
        if not len(p):
            return 1.0
        if stage.is_sigmoid:
            values = stage.label_values.values()
            truth = np.stack([np.isin(truth, own) for own in values], axis=1)
        return round(fit_temperature(p, truth, sigmoid=stage.is_sigmoid), 4)


def _box(mask: NDArray[np.bool_], margin: NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box around a mask, widened; None of an empty one."""
    box = []
    for axis, n in enumerate(mask.shape):
        others = tuple(each for each in range(3) if each != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not found.size:
            return None
        box.append(
            slice(max(0, int(found[0] - margin[axis])), min(n, int(found[-1] + 1 + margin[axis])))
        )
    return tuple(box)


def _within(
    indices: Sequence[NDArray[np.intp]], box: tuple[slice, ...] | None
) -> NDArray[np.bool_]:
    if box is None:
        return np.zeros(len(indices[0]), dtype=bool)
    sides = [(own >= s.start) & (own < s.stop) for own, s in zip(indices, box, strict=True)]
    return np.logical_and.reduce(sides)


@dataclass(frozen=True)
class _Point:
    """A result as the line sees it."""

    case: str
    confidence: float
    distance: float
    dice: float


def _points(label: str, measured: _Measured, results: Iterable[_Result]) -> Iterator[_Point]:
    """Of results that have a Dice."""
    for result in results:
        dice, confidence = result.dice[label], result.confidence.get(label)
        # Without a voxel of the label nothing is expected either: the gate says so at once.
        if dice is not None and confidence is not None:
            distance = min(measured.known.distance(label, result), MOST_DISTANCE)
            yield _Point(result.case, confidence, distance, dice)


def _label_calibration(
    name: str,
    measured: _Measured,
    fitted: set[str],
    acceptable: float | None,
    reliability: tuple[Reliability, Reliability],
) -> LabelCalibration:
    dice = [each.dice[name] for each in measured.results]
    known = [value for value in dice if value is not None]
    path = measured.model.file.path or "the model"
    if not known:
        values = ", ".join(map(str, measured.values[name]))
        raise DatasetError(
            f"{measured.dataset.root}: no case that did not train the model has {told(name)} "
            f"(value {values}); give cases that have it, or its values with --labels"
        )
    if len(known) > 1 and len(set(known)) == 1:
        raise LeansegError(
            f"{path}: every case has the same Dice of {told(name)}, {known[0]:g}, so nothing tells "
            "good results from bad ones; give other cases, or train the model further"
        )
    unchanged = [*_points(name, measured, measured.results)]
    if not unchanged:
        raise LeansegError(
            f"{path}: finds nothing of {told(name)} in any case that has it, so there is nothing "
            "to calibrate; train the model further"
        )
    changed = [*_points(name, measured, measured.changed)]
    own = [each for each in unchanged if each.case in fitted]
    training = own + changed
    rest = [each for each in unchanged if each.case not in fitted]
    if not rest or len({each.case for each in training}) < 2:
        # Too few for a line of their own.
        training, rest = [], unchanged
    features = np.array([[each.confidence, each.distance] for each in training]).reshape(-1, 2)
    line = fit_line(features, np.array([each.dice for each in training]))
    least = _ACCEPTABLE_SHARE * float(np.median(known)) if acceptable is None else acceptable
    gate = LabelGate(
        usual=measured.known.usual(name),
        may_be_empty=measured.known.may_be_empty(name),
        review_at=_LEAST_REVIEW,
        reject_at=_LEAST_REJECT,
        acceptable=least,
        pass_at=least,
        line=(line[0], line[1], line[2]),
        error=0.0,
        coverage=LEVEL,
        n_cases=len(rest),
    )

    def expected(point: _Point) -> float:
        return expected_dice(gate, point.confidence, point.distance)

    errors = [abs(each.dice - expected(each)) / error_scale(expected(each)) for each in rest]
    error, coverage = conformal_quantile(errors)
    covered, n = held_out_coverage(errors)
    # Before they were cut off.
    distances = sorted(measured.known.distance(name, each) for each in measured.results)
    k = min(len(distances), math.ceil((len(distances) + 1) * LEVEL - 1e-9))
    gate = gate.model_copy(
        update={
            "error": float(error),
            "coverage": coverage,
            "review_at": max(_LEAST_REVIEW, distances[k - 1]),
            "reject_at": max(_LEAST_REJECT, 2 * distances[-1]),
            "pass_at": _pass_at(
                [(expected(each), each.dice) for each in training],
                [expected(each) for each in unchanged if each.dice >= least],
                least,
            ),
        }
    )
    mean = float(np.mean([abs(each.dice - expected(each)) for each in rest]))
    return LabelCalibration(*reliability, covered, n, mean, gate)


def _pass_at(
    results: Sequence[tuple[float, float]], good: Sequence[float], acceptable: float
) -> float:
    """The expected Dice that nine of ten bad results stay below, and one of ten good ones at most.

    Args:
        results: Expected and true Dice.
        good: Expected Dice of unchanged scans whose Dice is acceptable.
        acceptable: The least that is returned.
    """
    bad = [expected for expected, dice in results if dice < acceptable]
    if not bad or not good:
        return acceptable
    return max(acceptable, min(float(np.quantile(bad, LEVEL)), float(np.quantile(good, 1 - LEVEL))))
