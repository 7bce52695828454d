"""Which networks a stack is made of, and which of them did not see a case (paper 002)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leanseg.datasets.splits import patients_of
from leanseg.errors import RecipeError
from leanseg.modelfile import read_model
from leanseg.training.folder import (
    MODEL_FILE,
    STACK_FILE,
    SUMMARY_FILE,
    Run,
    is_done,
    read_record,
    read_run,
)


@dataclass(frozen=True, eq=False)
class FoldModel:
    """The network of a fold of a run.

    Attributes:
        run: The run.
        fold: The fold.
        score: Dice of its monitor cases.
        seen: Cases that it learned from, or that chose its epoch, and all of their patients.
    """

    run: Run
    fold: int
    score: float
    seen: frozenset[str]

    @property
    def path(self) -> Path:
        """Its model file."""
        return self.run.fold_folder(self.fold) / MODEL_FILE

    @property
    def name(self) -> str:
        """For the user."""
        return f"{self.run.folder.name}, fold {self.fold}"


@dataclass(frozen=True, eq=False)
class Group:
    """The networks of one recipe, of all its folds and runs.

    Attributes:
        name: Of the recipe.
        ranked: The one with the best monitor Dice first.
        top: So many of them are members of the stack.
    """

    name: str
    ranked: tuple[FoldModel, ...]
    top: int

    @property
    def members(self) -> tuple[FoldModel, ...]:
        """Those that are combined."""
        return self.ranked[: self.top]

    def unseen(self, member: FoldModel, case: str) -> FoldModel | None:
        """What stands for a member where a case's map is made for training: it did not see it.

        Itself; else the best of its run; else the best of the group; None where all have.
        """
        of_run = [each for each in self.ranked if each.run is member.run]
        order = (member, *of_run, *self.ranked)
        return next((each for each in order if case not in each.seen), None)


def read_groups(folders: Sequence[Path], top: int) -> list[Group]:
    """The networks of finished folds, by recipe, ranked.

    Args:
        folders: Of runs on the same data.
        top: Members of each group.

    Raises:
        RecipeError: If a folder is given twice, is itself a stack, or has no finished fold; or
            they are of different data or channels.
        LeansegError: If one is not a run, or its files are damaged.
    """
    if top < 1:
        raise RecipeError(f"the best {top} networks of each recipe are none; choose 1 or more")
    runs: list[Run] = []
    found: dict[tuple[object, ...], list[FoldModel]] = {}
    for folder in folders:
        run = read_run(folder)
        if (folder / STACK_FILE).exists():
            raise RecipeError(f"{folder}: is itself a stack; give the runs that it is made of")
        runs.append(run)
        _check_alike(run, runs)
        # What stands for another has the same outputs.
        outputs = (run.plan.labels, tuple(run.plan.final.inside.items()))
        models = list(_fold_models(run))
        found.setdefault((run.recipe.name, run.recipe.network.name, outputs), []).extend(models)
    groups = []
    for (name, *_), models in found.items():
        # Of equal scores the first given counts more: sorting is stable.
        ranked = sorted(models, key=lambda model: -model.score)
        groups.append(Group(str(name), tuple(ranked), top))
    return groups


def _check_alike(run: Run, runs: Sequence[Run]) -> None:
    first, folder = runs[0], run.folder
    if any(folder.resolve() == other.folder.resolve() for other in runs[:-1]):
        raise RecipeError(f"{folder}: is given twice; give every run once")
    if run.data.fingerprint != first.data.fingerprint:
        raise RecipeError(
            f"{folder}: was trained on other data than {first.folder} (their cases, scans or "
            "labels differ); stack runs on the same data"
        )
    channels = run.data.channels, run.data.channel_indices
    if channels != (first.data.channels, first.data.channel_indices):
        raise RecipeError(
            f"{folder}: sees the channels {', '.join(run.data.channels)}, but {first.folder} "
            f"{', '.join(first.data.channels)}; stack runs on the same channels"
        )


def _fold_models(run: Run) -> Iterator[FoldModel]:
    done = [number for number in run.folds if is_done(run.fold_folder(number))]
    if not done:
        raise RecipeError(
            f"{run.folder}: no fold of it is trained to its end; continue with "
            "leanseg train --resume"
        )
    for number in done:
        score = read_record(run.fold_folder(number) / SUMMARY_FILE)["best_monitor_dice"]
        yield FoldModel(run, number, float(score), frozenset(_seen(run, number)))


def _seen(run: Run, number: int) -> Iterator[str]:
    """The cases of which a fold's network knows something."""
    own = {*run.splits[number].train, *run.splits[number].monitor}
    if run.recipe.init is not None:
        # By their names, whatever data they are of: too careful rather than not enough.
        before = read_model(Path(run.recipe.init)).provenance
        own |= {*before.training_cases, *before.monitor_cases}
    patients = patients_of(run.data.cases)
    known = {patients[name] for name in own if name in patients}
    for case in run.data.cases:
        if case.name in own or patients.get(case.name) in known:
            yield case.name


def run_of_labels(groups: Sequence[Group], chosen: Path | None) -> Run:
    """The run whose labels the stack has: the chosen one, or that with the most labels.

    Raises:
        RecipeError: If the chosen one is not among them, or several have the most labels, and
            these differ.
    """
    runs = list({id(m.run): m.run for group in groups for m in group.ranked}.values())
    if chosen is not None:
        for run in runs:
            if run.folder.resolve() == chosen.resolve():
                return run
        raise RecipeError(
            f"{chosen}: its labels are asked for, but it is none of the runs that are stacked; "
            "choose one of them"
        )
    most = max(len(run.plan.labels) for run in runs)
    first, *others = (run for run in runs if len(run.plan.labels) == most)
    for other in others:
        if _meaning(other) != _meaning(first):
            raise RecipeError(
                f"{first.folder} and {other.folder} have {most} label(s) each, which differ "
                f"({_told(first)}; {_told(other)}); say whose the stack has with --labels-of RUN"
            )
    return first


def _meaning(run: Run) -> list[tuple[str, list[int]]]:
    return [(name, sorted(values)) for name, values in run.data.label_values.items()]


def _told(run: Run) -> str:
    return ", ".join(f"{name} {values}" for name, values in _meaning(run))
