"""The planner: from a dataset and a budget to a recipe, with what it will cost."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from leanseg.datasets import Case, Dataset
from leanseg.datasets.splits import patients_of
from leanseg.errors import DatasetError, RecipeError
from leanseg.files import write_json
from leanseg.frames import ArrayCache
from leanseg.frames.fingerprint import Fingerprint, along, take_fingerprint
from leanseg.machine import processor
from leanseg.progress import Display
from leanseg.training.data import TrainingData, select_data
from leanseg.training.planning import rules
from leanseg.training.planning.budget import Budget
from leanseg.training.planning.card import PLANNING_FILE, CostCard
from leanseg.training.planning.rules import View
from leanseg.training.recipe import Recipe, validate_recipe
from leanseg.training.seeds import Role, derive_seed

if TYPE_CHECKING:
    from rich.console import Console

    from leanseg.training.planning.measuring import Measured

# Cases whose scans and labels are read for the fingerprint.
_LOOKED_AT = 48
# In a shorter budget nothing is measured.
_WORTH_MEASURING_S = 30.0
# What export and packaging take, and the share that training has whatever all else takes.
_PACKAGING_S, _LEAST_SHARE = 15.0, 0.5
# Choosing the decision takes one look at the monitor cases, and deciding again about as long.
_LOOKS_TO_CHOOSE = 2
# As often progress is told.
_EPOCHS = 20
# Copies of the weights in a fold's folder: the state (weights, average, two moments, what is
# selected), what is selected once more, and the model file.
_COPIES = 7
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Planned:
    """A recipe for a dataset and a budget, and the reasons for it.

    Attributes:
        recipe: Ready to train.
        fingerprint: Of the dataset.
        views: What the network sees, and what it could have seen instead.
        card: What it costs.
    """

    recipe: Recipe
    fingerprint: Fingerprint
    views: tuple[View, ...]
    card: CostCard

    def lines(self) -> list[str]:
        """The plan in words."""
        network, (view, *others) = self.recipe.network, self.views
        filters = network.options.get("base_filters")
        named = network.name if filters is None else f"{network.name}, {filters} filters"
        return [
            *self.fingerprint.words(),
            "",
            f"plan: {view}, {rules.BATCH_SIZE[view.dimensions]} a step; {named}",
            f"because it {view.why}",
            *(f"instead of {other}: it {other.why}" for other in others),
            "",
            *self.card.lines(),
        ]

    def write(self, folder: Path) -> None:
        """Leave the plan in a run's folder."""
        content = {
            "fingerprint": asdict(self.fingerprint),
            "views": [asdict(view) for view in self.views],
            "card": asdict(self.card),
        }
        write_json(folder / PLANNING_FILE, content)


def plan_training(
    dataset: Dataset,
    budget: Budget,
    *,
    cache: Path | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> Planned:
    """Plan a training: look at the data, measure some steps, choose.

    Args:
        dataset: What to learn from.
        budget: What it may take.
        cache: Folder that keeps what was found out about cases.
        overrides: Of the recipe, "key.path=value"; what they say of data and training counts in
            planning, too.
        console: Where progress is told; None is standard output.

    Raises:
        DatasetError: If there is nothing to learn.
        RecipeError: If no plan fits into the memory, or an override is wrong.
        LeansegError: If the data cannot be used.
    """
    from leanseg.training import ranks

    if ranks.started_by_launcher():
        raise RecipeError(
            "a training of several processes is planned beforehand: write the plan with "
            "`leanseg plan DATA --output plan.yaml`, and give plan.yaml to every process"
        )
    started = time.monotonic()
    own = [each for each in overrides if re.split(r"[.=]", each)[0] in ("data", "training")]
    first = Recipe(name="planned").with_overrides(own)
    data = select_data(dataset, first)
    cases = _looked_at(data, first.training.seed)
    with tempfile.TemporaryDirectory() as scratch, Display(console) as display:
        found = take_fingerprint(
            cases,
            data.label_values,
            data.channels,
            ArrayCache(cache or Path(scratch)),
            n_cases=len(data.cases),
            channel_indices=data.channel_indices,
            on_case=display.count("looking at the data", len(cases)),
        )
        if not any(facts.cases for facts in found.classes.values()):
            raise DatasetError(
                f"{dataset.root}: no case has a voxel of {', '.join(found.classes)}; correct "
                "the label maps, or 'data.labels'"
            )
        # The check and the cache read every case once more.
        a_case_s = (time.monotonic() - started) / len(cases)
        before_s = time.monotonic() - started + 2 * a_case_s * len(data.cases)
        return _Planner(first, data, found, budget, before_s).planned(overrides, display)


def _looked_at(data: TrainingData, seed: int) -> list[Case]:
    """The cases of which a fingerprint is taken: all, or so many drawn."""
    rng = np.random.default_rng(derive_seed(seed, Role.MEASUREMENT))
    chosen = rng.permutation(len(data.cases))[:_LOOKED_AT]
    return [data.cases[number] for number in sorted(chosen)]


class _Planner:
    def __init__(
        self,
        first: Recipe,
        data: TrainingData,
        found: Fingerprint,
        budget: Budget,
        before_s: float,
    ) -> None:
        self._first, self._data, self._found, self._budget = first, data, found, budget
        self._seconds: float | None = None
        if budget.cpu_minutes is not None:
            self._seconds = 60 * budget.cpu_minutes
        elif budget.minutes is not None:
            whole = 60 * budget.minutes
            self._seconds = max(whole - before_s - _PACKAGING_S, _LEAST_SHARE * whole)
        self._measured: Measured | None = None
        # Nothing may depend on the clock where steps are counted.
        self._measures = self._seconds is not None and self._seconds >= _WORTH_MEASURING_S

    def planned(self, overrides: Sequence[str], display: Display) -> Planned:
        """The plan for the budget."""
        from leanseg.training.planning.measuring import measure

        asked = self._first.training.precision
        precision = None if asked == "auto" else str(asked)
        most = self._budget.memory_bytes or psutil.virtual_memory().total
        rate, room, smallest = rules.VOXELS_PER_SECOND, None, math.inf
        seen: dict[View, Measured] = {}
        started = time.monotonic()
        if self._measures:
            display.begin("measuring some steps of training", None)
        while True:
            views = rules.views(self._found, self._seconds, rate, room)
            recipe = self._recipe(views[0])
            plan = self._data.plan(recipe)
            if self._measures:
                is_new = views[0] not in seen
                if is_new:
                    seen[views[0]] = measure(recipe, plan, precision)
                self._measured = seen[views[0]]
                precision = self._measured.precision
                true_rate = views[0].batch_voxels / self._step_s(views[0])
                # What was seen before is taken: two views may each speak for the other.
                if is_new and not 0.8 < true_rate / rate < 1.25:
                    rate = true_rate
                    if rules.views(self._found, self._seconds, rate, room)[0] != views[0]:
                        continue
            needed = self._memory(recipe)
            if needed <= most:
                break
            if views[0].n_voxels >= smallest:
                raise RecipeError(
                    f"{self._data.root}: training takes at least {needed / 1e9:.2f} GB of "
                    f"memory, and there are {most / 1e9:.2f}; give it more (--memory)"
                )
            smallest = views[0].n_voxels
            room = smallest // 2
        if self._seconds is not None and self._budget.minutes is not None:
            least = _LEAST_SHARE * 60 * self._budget.minutes
            self._seconds = max(self._seconds - (time.monotonic() - started), least)
        recipe = self._recipe(views[0]).with_overrides(overrides)
        return Planned(recipe, self._found, tuple(views), self._card(views[0]))

    def _memory(self, recipe: Recipe) -> int:
        from leanseg.training.runtime import training_bytes

        if self._measured is not None:
            return self._measured.peak_bytes
        return training_bytes(recipe, self._data.plan(recipe))

    def _step_s(self, view: View) -> float:
        """Seconds of a step, of the clock that the budget goes by."""
        if self._measured is None:
            return view.batch_voxels / rules.VOXELS_PER_SECOND
        by_cpu = self._budget.cpu_minutes is not None
        return self._measured.step_cpu_s if by_cpu else self._measured.step_s

    def _n_steps(self, view: View) -> int:
        if self._budget.steps is not None:
            return self._budget.steps
        return max(int((self._seconds or 0.0) / self._step_s(view)), 1)

    def _scan_s(self, view: View) -> float:
        """Seconds to predict a median scan."""
        n_patches = 1
        for n, mm, voxel, size in zip(
            along(view.orientation, self._found.shape),
            along(view.orientation, self._found.spacing_mm),
            view.voxels_mm,
            view.patch,
            strict=True,
        ):
            step = max(size // 2, 1)
            n_patches *= max(math.ceil((n * mm / voxel - size) / step), 0) + 1
        patch_s = view.n_voxels / rules.VOXELS_PER_SECOND / 3
        return n_patches * (patch_s if self._measured is None else self._measured.patch_s)

    def _split(self, view: View) -> dict[str, Any]:
        """How cases are divided, and how many may be looked at while training."""
        patients = patients_of(self._data.cases)
        n = len({patients.get(case.name, (case.name,)) for case in self._data.cases})
        most = rules.MONITOR_CASES
        if self._seconds is not None:
            # The last look has to fit.
            most = int(rules.MONITOR_SHARE * self._seconds / self._scan_s(view))
        return rules.split(n, most, cross_validate=self._budget.cross_validate)

    def _recipe(self, view: View) -> Recipe:
        steps, dimensions = self._n_steps(view), view.dimensions
        per_epoch = max(steps // _EPOCHS, 1)
        split = self._split(view)
        n_looked_at = max(round(split["monitor_fraction"] * 0.8 * len(self._data.cases)), 1)
        looks = rules.MONITOR_SHARE * (self._seconds or 0) / (self._scan_s(view) * n_looked_at)
        devices = self._first.training.devices
        ends: dict[str, Any] = {"epochs": None, "steps": self._budget.steps}
        if self._seconds is not None:
            key = "minutes" if self._budget.cpu_minutes is None else "cpu_minutes"
            ends[key] = self._seconds / 60
            if split["monitor_fraction"] and key == "minutes":
                # The budget by the clock holds all of it.
                choosing_s = _LOOKS_TO_CHOOSE * self._scan_s(view) * n_looked_at
                ends[key] -= min(choosing_s / 60, _LEAST_SHARE * ends[key])
        phase = {
            "sampler": {
                "name": "patches",
                "options": {"foreground_fraction": rules.FOREGROUND_FRACTION},
            },
            "augmentation": rules.AUGMENTATION,
            "loss": rules.LOSS,
            "optimiser": rules.OPTIMISER,
            "schedule": {
                **rules.SCHEDULE,
                "warmup": min(rules.WARMUP_SHARE, rules.WARMUP_STEPS / steps),
            },
            # As many for each device.
            "batch_size": -(-rules.BATCH_SIZE[dimensions] // devices) * devices,
            "clip_norm": rules.CLIP_NORM,
            "average": rules.AVERAGE,
            "steps_per_epoch": per_epoch,
            "monitor_every": max(math.ceil(_EPOCHS / max(looks - 1, 0.5)), 1),
            "patience": None,
            "selection": "last",
            **ends,
        }
        training = self._first.training.model_dump(mode="json")
        if self._budget.cross_validate:
            training["folds"] = "all"
        if self._seconds is not None:
            # Whoever stops early loses little.
            training["checkpoint_interval_s"] = min(max(self._seconds / _EPOCHS, 5.0), 60.0)
        # Folds that decide in different ways would make no ensemble.
        alone = not self._budget.cross_validate
        training["choose_decision"] = alone and split["monitor_fraction"] > 0
        if training["precision"] == "auto":
            training["precision"] = (
                _usual_precision() if self._measured is None else self._measured.precision
            )
        content = {
            "name": self._first.name,
            "description": f"Planned for {self._data.name}: {view}.",
            "data": self._first.data.model_dump(mode="json"),
            "network": rules.network(view),
            "plan": {
                "frame": {
                    "orientation": view.orientation,
                    "axes": [None if mm is None else {"spacing_mm": mm} for mm in view.spacing_mm],
                },
                "patch": {"shape": list(view.patch)},
                "intensity": rules.intensity(self._found),
            },
            "split": split,
            "phases": [phase],
            "training": training,
        }
        return validate_recipe(content, "the planned recipe")

    def _card(self, view: View) -> CostCard:
        measured, budget = self._measured, self._budget
        card = CostCard(
            minutes=None if self._seconds is None or budget.cpu_minutes else self._seconds / 60,
            cpu_minutes=budget.cpu_minutes,
            steps=self._n_steps(view) if measured or budget.steps else None,
            memory_bytes=None,
            disk_bytes=None,
            model_bytes=None,
            scan_s=None,
        )
        if measured is None:
            return card
        minutes = (self._seconds or 0) / 60
        if budget.cpu_minutes is None:
            card = replace(card, cpu_minutes=minutes * measured.step_cpu_s / measured.step_s)
        else:
            card = replace(card, minutes=minutes * measured.step_s / measured.step_cpu_s)
        scan = math.prod(self._found.shape)
        mm3 = scan * math.prod(self._found.spacing_mm)
        frame = mm3 / math.prod(view.voxels_mm)
        n_cached = max(0.8 * len(self._data.cases), 1)
        seen = n_cached * frame * (len(self._data.channels) * _FLOAT_BYTES + 1)
        weights = measured.parameters * _FLOAT_BYTES
        return replace(
            card,
            # What training reads of the cache is mapped.
            memory_bytes=measured.peak_bytes + seen,
            disk_bytes=seen + n_cached * scan + _COPIES * weights,
            model_bytes=weights,
            scan_s=self._scan_s(view),
        )


def _usual_precision() -> str:
    """The faster precision by what the processor says of itself, where nothing is measured."""
    return "bf16-mixed" if processor()[1] & {"avx512_bf16", "amx_bf16"} else "32"
