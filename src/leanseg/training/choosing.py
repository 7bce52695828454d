"""The end of a fold's training: threshold and largest components, chosen on the monitor cases.

The network looks at each case once. What it says is kept on disk and decided again and again, by
the code that predicts; so the choice is made on the label maps that a user of the model would get.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.frames import PreparedCase
from leanseg.inference import Pipeline
from leanseg.inference.pipeline import postprocess
from leanseg.plan import Plan, Stage
from leanseg.scratch import scratch_folder
from leanseg.training.monitor import case_dice, known_labels
from leanseg.training.recipe import LEAST_CASES

# A step of a tenth moves the Dice of most networks by less than what decides here.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
# Monitor cases are few, so that a mean moves by chance, and one case can make it: a change has to
# be worth something in the mean, and cost no case more than is lost by chance.
LEAST_GAIN = 0.005
MOST_FALL = 0.02


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        plan: The plan, with it.
        n_cases: Monitor cases it was chosen on.
        changes: In words, what differs from the plan in training.
        dice_before: Mean over cases of the mean over their labels, as the plan was. A label that
            is neither in a case nor found there counts 1.
        dice: The same with the choice.
    """

    plan: Plan
    n_cases: int
    changes: tuple[str, ...] = ()
    dice_before: float | None = None
    dice: float | None = None

    def __str__(self) -> str:
        """A line for the user."""
        if self.n_cases < LEAST_CASES:
            return (
                f"threshold and components stay as the plan has them: of {self.n_cases} monitor "
                f"case(s) nothing is chosen, {LEAST_CASES} are needed"
            )
        chosen = "; ".join(self.changes) or "as the plan has it, no change is clearly better"
        gain = f"; mean Dice {self.dice_before:.4f}, now {self.dice:.4f}" if self.changes else ""
        return f"chosen on {self.n_cases} monitor cases: {chosen}{gain}"

    def to_json(self) -> dict[str, Any]:
        """What a fold's summary says of it."""
        stage = self.plan.final
        return {
            "cases": self.n_cases,
            "threshold": stage.threshold if stage.is_sigmoid else None,
            "largest_component": list(stage.cleaned_labels),
            "changes": list(self.changes),
            "dice_before": self.dice_before,
            "dice": self.dice,
        }


def choose_decision(
    pipeline: Pipeline,
    cases: Sequence[PreparedCase],
    folder: Path,
    on_case: Callable[[str], None] = lambda name: None,
) -> Choice:
    """Choose how the last stage of a plan decides.

    Args:
        pipeline: Around the trained network.
        cases: The monitor cases.
        folder: Where what the network says may lie meanwhile.
        on_case: Called with the name of each case that the network has seen.

    Returns:
        The choice; of fewer than three cases the plan as it is.
    """
    if len(cases) < LEAST_CASES:
        return Choice(pipeline.plan, len(cases))
    with scratch_folder(folder, ".choosing-") as scratch:
        looked = []
        for number, case in enumerate(cases):
            looked.append(_look(pipeline, case, scratch / f"{number}.npy"))
            on_case(case.name)
        return _Choosing(pipeline, looked).choice()


@dataclass(frozen=True)
class _Looked:
    """A case that the network has seen.

    Attributes:
        case: The case.
        path: What it said: probabilities (plane, output, i, j) where a threshold decides, else the
            classes (i, j, k) in the scan's resolution, with all of their components.
    """

    case: PreparedCase
    path: Path

    def dice(self, pipeline: Pipeline) -> NDArray[np.float64]:
        """Dice (label,) as a plan decides; NaN where the case does not annotate the label."""
        stage, kept = pipeline.plan.final, np.load(self.path, mmap_mode="r")
        if stage.is_sigmoid:
            labels = pipeline.decide_source(self.case.source, kept)
        else:
            labels = np.array(kept, order="F")
            postprocess(labels, stage)
        dice = case_dice(labels, self.case, stage)
        # To find nothing where nothing is, is right; else finding nothing any more would be no
        # gain, and finding what is not there no loss.
        return np.where(np.isnan(dice) & known_labels(self.case, stage), 1.0, dice)


def _look(pipeline: Pipeline, case: PreparedCase, path: Path) -> _Looked:
    """Run the network over a case and keep what a decision needs."""
    stage = _cleaned(pipeline.plan.final, ())
    i, j, k = case.source.shape
    planes = np.empty((k, stage.n_outputs, i, j) if stage.is_sigmoid else 0, dtype=np.float32)

    def keep(start: int, probabilities: NDArray[np.float32]) -> None:
        planes[start : start + len(probabilities)] = probabilities

    on_planes = keep if stage.is_sigmoid else None
    labels = _deciding(pipeline, stage).predict_source(case.source, on_planes)
    np.save(path, planes if stage.is_sigmoid else labels)
    return _Looked(case, path)


class _Choosing:
    """Changes to a stage, one after another; kept where they are clearly better."""

    def __init__(self, pipeline: Pipeline, looked: Sequence[_Looked]) -> None:
        self._pipeline, self._looked = pipeline, looked
        self._stage = pipeline.plan.final
        self._dice = self._of(self._stage)
        self._changes: list[str] = []

    def choice(self) -> Choice:
        """Try everything."""
        before = _mean(self._dice)
        if self._stage.is_sigmoid:
            self._choose_threshold()
        for labels in _levels(self._stage):
            self._choose_components(labels)
        plan = _deciding(self._pipeline, self._stage).plan
        return Choice(plan, len(self._looked), tuple(self._changes), before, _mean(self._dice))

    def _of(self, stage: Stage) -> NDArray[np.float64]:
        """Dice (case, label) with a stage."""
        pipeline = _deciding(self._pipeline, stage)
        return np.stack([each.dice(pipeline) for each in self._looked])

    def _choose_threshold(self) -> None:
        own, best = self._stage.threshold, 0.0
        before = self._dice
        # Of equally good ones the nearest stays.
        for threshold in sorted(THRESHOLDS, key=lambda each: abs(each - own)):
            stage = self._stage.model_copy(update={"threshold": threshold})
            dice = before if threshold == own else self._of(stage)
            rises = _rises(before, dice)
            if _is_better(rises) and rises.mean() > best:
                best, self._stage, self._dice = float(rises.mean()), stage, dice
        if self._stage.threshold != own:
            self._changes.append(f"threshold {self._stage.threshold:g} instead of {own:g}")

    def _choose_components(self, labels: Collection[str]) -> None:
        """Of labels that do not meet, so that all can be changed at once."""
        cleaned, members = set(self._stage.cleaned_labels), self._stage.label_values
        trial = self._of(_cleaned(self._stage, cleaned ^ set(labels)))
        for name in labels:
            # With what is inside it, which goes where it goes.
            columns = [number - 1 for number in members[name]]
            if _is_better(_rises(self._dice[:, columns], trial[:, columns])):
                self._dice[:, columns] = trial[:, columns]
                what = "all components" if name in cleaned else "the largest component alone"
                self._changes.append(f"{what} of {name}")
                cleaned ^= {name}
        self._stage = _cleaned(self._stage, cleaned)


def _rises(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the mean over labels (case, label) rises in each case that annotates any."""
    known = np.isfinite(before).any(axis=1)
    return np.asarray(np.nanmean(after[known] - before[known], axis=1))


def _is_better(rises: NDArray[np.float64]) -> bool:
    """Whether rises of the Dice, case by case, are worth a change."""
    enough = len(rises) >= LEAST_CASES
    return enough and bool(rises.mean() >= LEAST_GAIN and rises.min() >= -MOST_FALL)


def _mean(dice: NDArray[np.float64]) -> float:
    """Mean over cases of the mean over labels; each case annotates one at least."""
    return float(np.nanmean(dice, axis=1).mean())


def _levels(stage: Stage) -> list[list[str]]:
    """Labels that lie in no other, then those in one, and so on."""
    members = stage.label_values
    depth = {
        name: sum(number in inside for inside in members.values())
        for number, name in enumerate(stage.labels, start=1)
    }
    return [[n for n in stage.labels if depth[n] == each] for each in sorted({*depth.values()})]


def _cleaned(stage: Stage, names: Collection[str]) -> Stage:
    """A stage of which these labels keep their largest component alone."""
    listed = tuple(name for name in stage.labels if name in names)
    chosen = bool(listed) if len(listed) in (0, len(stage.labels)) else listed
    return stage.model_copy(update={"largest_component": chosen})


def _deciding(pipeline: Pipeline, stage: Stage) -> Pipeline:
    """The pipeline with another last stage, around the same network."""
    plan = pipeline.plan
    changed = plan.model_copy(update={"stages": (*plan.stages[:-1], stage)})
    return Pipeline(changed, pipeline.engines)
