"""What controlled changes of scans do to a model's Dice: summaries and slopes over cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from leanseg.evaluation.changes import Factor
from leanseg.evaluation.paired import worst_tenth
from leanseg.files import write_csv, write_json
from leanseg.modelfile import RobustnessRecord

UNCHANGED: Final = "unchanged"
ROBUSTNESS_DEFINITIONS: Final[dict[str, str]] = {
    "dice": "of the changed scan's prediction and the changed label map, on the changed scan's own "
    "grid; undefined where that label map does not have the label, or the case not annotate it",
    "n": "cases that have a Dice",
    "sd": "standard deviation over cases (n - 1)",
    "worst_tenth": "mean of the lowest tenth of the cases, their number rounded up",
    "difference": "mean of Dice minus that of the unchanged scan, paired by case",
    "difference_sd": "its standard deviation over cases (n - 1)",
    "n_pairs": "cases that have both",
    "slope": "of Dice per unit of the factor, by least squares with an intercept for every case, "
    "over the unchanged scans and all levels; where levels lie on both sides of no change, of each "
    "side alone, below and above",
    "interval": "95 % of the slope, by Student's t with as many degrees of freedom as cases less "
    "one: cases are independent, levels of one case are not (the cluster-robust variance; of cases "
    "with the same levels it is the t interval of the mean of their slopes)",
    "labels_changed": "voxels that another label was given in than without the change",
}


@dataclass(frozen=True)
class LevelScore:
    """One case at one level of a factor.

    Attributes:
        case: Its name.
        factor: Name of the factor.
        level: Name of the level, or `UNCHANGED`.
        value: Of the factor; None where it has none.
        dice: By label; None where it is undefined.
        labels_changed: Voxels with another label than without the change; None where a change is
            meant to change labels.
    """

    case: str
    factor: str
    level: str
    value: float | None
    dice: Mapping[str, float | None]
    labels_changed: int | None = None


@dataclass(frozen=True)
class Slope:
    """Of Dice per unit of a factor; `interval` is None where there are not two cases."""

    slope: float
    interval: tuple[float, float] | None
    n: int


def within_case_slope(
    values: Iterable[NDArray[np.float64]], dice: Iterable[NDArray[np.float64]]
) -> Slope | None:
    """Least squares over cases that have intercepts of their own.

    Args:
        values: Of the factor, an array (levels,) for each case.
        dice: The same shapes.

    Returns:
        None where no case has two different values. The interval is as
        `ROBUSTNESS_DEFINITIONS` has it.

    Example:
        >>> x = np.array([0.0, 1.0, 2.0])
        >>> round(within_case_slope([x, x], [1 - 0.1 * x, 0.5 - 0.3 * x]).slope, 6)
        -0.2
    """
    from scipy.stats import t

    sums = []
    for x, y in zip(values, dice, strict=True):
        if x.size and np.ptp(x) > 0:
            x, y = x - x.mean(), y - y.mean()
            sums.append((x @ x, x @ y))
    if not sums:
        return None
    of_x, of_xy = np.array(sums).T
    slope, n = float(of_xy.sum() / of_x.sum()), len(sums)
    if n < 2:
        return Slope(slope, None, n)
    variance = n / (n - 1) * ((of_xy - slope * of_x) ** 2).sum() / of_x.sum() ** 2
    half = float(t.ppf(0.975, n - 1) * np.sqrt(variance))
    return Slope(slope, (slope - half, slope + half), n)


@dataclass(frozen=True)
class Robustness:
    """A model's Dice under controlled changes.

    Attributes:
        labels: Names of those that were scored.
        factors: What was changed, by name.
        scores: Case by case, then by factor and level; each factor has the unchanged scan, too.
        data_name: Name of the dataset.
        data_fingerprint: SHA-256 over the names and contents of the cases' files.
        seed: Of the random changes.
        notes: What is to be said, a sentence each.
    """

    labels: tuple[str, ...]
    factors: Mapping[str, Factor]
    scores: tuple[LevelScore, ...]
    data_name: str
    data_fingerprint: str
    seed: int
    notes: tuple[str, ...] = ()

    @cached_property
    def cases(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(dict.fromkeys(score.case for score in self.scores))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """By factor and label: "levels" by name, "slopes" by side; `ROBUSTNESS_DEFINITIONS`."""
        return {
            name: {
                label: {
                    "levels": self._levels(name, factor, label),
                    "slopes": self._slopes(name, factor, label),
                }
                for label in self.labels
            }
            for name, factor in self.factors.items()
        }

    def dice(self, factor: str, level: str, label: str) -> dict[str, float]:
        """Case to Dice, of the cases that have one."""
        found = {
            score.case: score.dice.get(label)
            for score in self.scores
            if (score.factor, score.level) == (factor, level)
        }
        return {case: dice for case, dice in found.items() if dice is not None}

    def _levels(self, name: str, factor: Factor, label: str) -> dict[str, Any]:
        before = self.dice(name, UNCHANGED, label)
        levels = {}
        for level in (UNCHANGED, *factor.levels):
            after = self.dice(name, level, label)
            pairs = [dice - before[case] for case, dice in after.items() if case in before]
            mean, sd = _mean_sd([*after.values()])
            difference, difference_sd = _mean_sd(pairs)
            levels[level] = {
                "n": len(after),
                "mean": mean,
                "sd": sd,
                "worst_tenth": float(worst_tenth(np.array([*after.values()]))) if after else None,
                "n_pairs": len(pairs),
                "difference": difference,
                "difference_sd": difference_sd,
            }
        return levels

    def _slopes(self, name: str, factor: Factor, label: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for side in factor.sides:
            points: dict[str, list[tuple[float, float]]] = {case: [] for case in self.cases}
            for score in self.scores:
                dice = score.dice.get(label)
                if score.factor == name and dice is not None and score.value is not None:
                    # Where there are two sides there is a value between them.
                    away = score.value - (factor.unchanged or 0)
                    if side == "all" or (away <= 0 if side == "below" else away >= 0):
                        points[score.case].append((score.value, dice))
            arrays = [np.array(each, dtype=np.float64).reshape(-1, 2) for each in points.values()]
            slope = within_case_slope([a[:, 0] for a in arrays], [a[:, 1] for a in arrays])
            if slope is not None:
                found[side] = {"slope": slope.slope, "interval": slope.interval, "n": slope.n}
        return found

    @property
    def labels_changed(self) -> dict[str, int]:
        """Factors that should change no label, to the number of voxels that they changed."""
        found: dict[str, int] = {}
        for score in self.scores:
            if score.labels_changed is not None:
                found[score.factor] = found.get(score.factor, 0) + score.labels_changed
        return found

    @property
    def record(self) -> RobustnessRecord:
        """What a model file keeps of it."""
        return RobustnessRecord(
            data_name=self.data_name,
            data_fingerprint=self.data_fingerprint,
            n_cases=len(self.cases),
            seed=self.seed,
            dice={label: _mean_sd([*self._unchanged(label).values()])[0] for label in self.labels},
            differences={
                name: {
                    label: {
                        level: None if each["difference"] is None else round(each["difference"], 4)
                        for level, each in of_label["levels"].items()
                        if level != UNCHANGED
                    }
                    for label, of_label in of_factor.items()
                }
                for name, of_factor in self.summary.items()
            },
        )

    def _unchanged(self, label: str) -> dict[str, float]:
        return self.dice(next(iter(self.factors)), UNCHANGED, label)

    def to_json(self, path: str | Path) -> None:
        """Write everything with its definitions; undefined values become null.

        Raises:
            LeansegError: If the file cannot be written.
        """
        content = {
            "format": "leanseg-robustness",
            "version": 1,
            "definitions": ROBUSTNESS_DEFINITIONS,
            "factors": {
                name: {"definition": each.definition, "unit": each.unit, "levels": each.levels}
                for name, each in self.factors.items()
            },
            "data": {"name": self.data_name, "fingerprint": self.data_fingerprint},
            "seed": self.seed,
            "cases": self.cases,
            "labels": self.labels,
            "summary": self.summary,
            "labels_changed": self.labels_changed,
            "notes": self.notes,
        }
        write_json(Path(path), content)

    def to_csv(self, path: str | Path) -> None:
        """Write one line per case, factor, level and label; undefined values are empty cells.

        Raises:
            LeansegError: If the file cannot be written.
        """
        before = {(s.case, s.factor): s.dice for s in self.scores if s.level == UNCHANGED}
        rows = []
        for score in self.scores:
            for label, dice in score.dice.items():
                own = before[score.case, score.factor][label]
                rows.append(
                    {
                        "case": score.case,
                        "factor": score.factor,
                        "level": score.level,
                        "value": score.value,
                        "label": label,
                        "dice": dice,
                        "difference": None if dice is None or own is None else dice - own,
                        "labels_changed": score.labels_changed,
                    }
                )
        write_csv(path, [*rows[0]], rows)


def _mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Of no values there is no mean, of one no standard deviation."""
    array = np.array(values, dtype=np.float64)
    mean = float(array.mean()) if array.size else None
    return mean, float(array.std(ddof=1)) if array.size > 1 else None
