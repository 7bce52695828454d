"""A stacked CNN (paper 002): trained networks, and a small one that combines what they say.

The combiner is an ordinary network in an ordinary run, whose "scans" are the members' probability
maps. It must learn how far they can be trusted on scans that are new to them, so every map that it
is trained, monitored or scored with is of a network that did not see the case.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case
from leanseg.datasets.splits import patients_of
from leanseg.errors import RecipeError
from leanseg.evaluation import read_scores
from leanseg.files import require_outputs, write_json
from leanseg.frames import ArrayCache, CasePreparer, cases_sha256
from leanseg.frames.source import planned_frame
from leanseg.inference import Model, load_model
from leanseg.modelfile import ModelFile, join_stack, read_model, stage_names, write_model
from leanseg.plan import Axis, Frame, Intensity, LinearScaling, NoWindow, Patch, StageSettings
from leanseg.progress import Display
from leanseg.training.environment import versions
from leanseg.training.folder import MODEL_FILE, SCORES_FILE, STACK_FILE, Run
from leanseg.training.recipe import LossTerm, Named, Phase, Recipe, SplitSection, TrainingSection
from leanseg.training.run import require_free, train_run, write_start
from leanseg.training.splitting import make_splits
from leanseg.training.stack_members import FoldModel, Group, read_groups, run_of_labels
from leanseg.volumes import Volume

if TYPE_CHECKING:
    from rich.console import Console

_FOLDS = 5
# To train, to monitor and to test.
_LEAST_CASES = 3
# Scans that tell how large a frame is that goes by millimetres.
_MEASURED_CASES = 5
_AS_IT_IS = Intensity(window=NoWindow(), scaling=LinearScaling(divide_by=1, add=0))


@dataclass(frozen=True)
class Stack:
    """What a stack is made of.

    Attributes:
        groups: Networks by recipe.
        names: Of the members, in the order of their channels, as stages are called.
        members: Likewise.
        sources: For each case that is used the networks whose maps stand for the members: none
            of them saw the case.
        left_out: The other cases, and the recipe whose networks all saw them.
    """

    groups: tuple[Group, ...]
    names: tuple[str, ...]
    members: tuple[FoldModel, ...]
    sources: Mapping[str, tuple[FoldModel, ...]]
    left_out: Mapping[str, str]

    @classmethod
    def of(cls, groups: Sequence[Group], cases: Sequence[str]) -> Stack:
        """Choose for each case what stands for each member."""
        slots = [(group, member) for group in groups for member in group.members]
        sources: dict[str, tuple[FoldModel, ...]] = {}
        left_out: dict[str, str] = {}
        for case in cases:
            found = [group.unseen(member, case) for group, member in slots]
            known = tuple(model for model in found if model is not None)
            if len(known) == len(slots):
                sources[case] = known
            else:
                left_out[case] = slots[found.index(None)][0].name
        names = stage_names([group.name for group, _ in slots])
        members = tuple(member for _, member in slots)
        return cls(tuple(groups), tuple(names), members, sources, left_out)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the maps."""
        found = []
        for name, member in zip(self.names, self.members, strict=True):
            stage = member.run.plan.final
            background = () if stage.is_sigmoid else ("background",)
            found += [f"{name}: {label}" for label in (*background, *stage.labels)]
        return tuple(found)

    def lines(self) -> list[str]:
        """The ranking, for the user."""
        told = []
        for group in self.groups:
            told.append(f"{group.name}: {len(group.members)} of {len(group.ranked)} networks")
            for number, model in enumerate(group.ranked, start=1):
                chosen = "" if number <= group.top else " (not a member)"
                told.append(f"  {number}. {model.name}: monitor Dice {model.score:.3f}{chosen}")
        if self.left_out:
            told.append(
                f"left out, since every network of a recipe saw them: {', '.join(self.left_out)}"
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """The content of `stack.json`."""

        def place(model: FoldModel) -> dict[str, Any]:
            return {"run": str(model.run.folder.resolve()), "fold": model.fold}

        named = zip(self.names, self.members, strict=True)
        return {
            "format": "leanseg-stack",
            "members": {n: {**place(m), "monitor_dice": m.score} for n, m in named},
            "sources": {case: [*map(place, models)] for case, models in self.sources.items()},
            "left_out": dict(self.left_out),
        }


@dataclass(frozen=True)
class MapPreparer(CasePreparer):
    """Prepares cases from the maps of networks that did not see them.

    Attributes:
        sources: Of each case, in the order of the members.
        scan_channels: Which channels of the files the networks see; None for all.
    """

    sources: Mapping[str, tuple[FoldModel, ...]] = field(default_factory=dict)
    scan_channels: Sequence[int] | None = None
    models: dict[Path, Model] = field(default_factory=dict)

    def key(self, case: Case, values: Mapping[str, Sequence[int]]) -> str:
        """Also of the bytes of the model files."""
        paths = [model.path for model in self._distinct(case)]
        files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        text = json.dumps(["maps", super().key(case, values), self.scan_channels, files])
        return hashlib.sha256(text.encode()).hexdigest()

    def image(self, case: Case, volume: Volume) -> NDArray[np.floating]:
        """(k, channel, i, j) float16: the maps of each network once."""
        maps = []
        for model in self._distinct(case):
            if model.path not in self.models:
                self.models[model.path] = load_model(model.path, allow_imports=True)
            pipeline = self.models[model.path].pipeline
            maps.append(pipeline.predict_maps(volume, self.plan.final, self.scan_channels))
        return np.concatenate(maps, axis=1)

    def channels(self, case: Case) -> Sequence[int]:
        """Where the maps of each member's stand-in are."""
        starts: dict[FoldModel, int] = {}
        n = 0
        for model in self._distinct(case):
            starts[model] = n
            n += model.run.plan.final.n_outputs
        return [
            starts[model] + output
            for model in self.sources[case.name]
            for output in range(model.run.plan.final.n_outputs)
        ]

    def _distinct(self, case: Case) -> list[FoldModel]:
        return list(dict.fromkeys(self.sources[case.name]))


def stack_runs(
    folders: Sequence[Path],
    output: Path,
    *,
    top: int = 5,
    labels_of: Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    cpu_minutes: float | None = None,
    threads: int | None = None,
    seed: int = 42,
    cache: Path | None = None,
    console: Console | None = None,
) -> Run:
    """Train a stack of the networks of finished runs.

    Args:
        folders: Of runs on the same data; their recipes, seeds and labels may differ.
        output: The stack's run folder; new or empty.
        top: So many networks of each recipe become members, ranked by their monitor Dice.
        labels_of: The run whose labels the stack has; None for that with the most.
        epochs: Of each fold of the combiner; None for 20.
        minutes: Likewise, by the clock.
        cpu_minutes: Likewise, of the processor.
        threads: Of PyTorch; None leaves its choice.
        seed: Of the combiner's training.
        cache: Folder for the maps; None keeps them in the run.
        console: Where it is told; None is standard output.

    Returns:
        The run, finished; `model.leanseg` in its folder is members and combiner in one file.

    Raises:
        LeansegError: If the runs do not go together, too few cases are new to a network of each
            recipe, or the folder cannot be used.
    """
    require_free(output)
    groups = read_groups(folders, top)
    own = run_of_labels(groups, labels_of)
    stack = Stack.of(groups, [case.name for case in own.data.cases])
    cases = tuple(case for case in own.data.cases if case.name in stack.sources)
    patients = patients_of(cases)
    n_patients = len({patients.get(case.name, case.name) for case in cases})
    if n_patients < _LEAST_CASES:
        first = next(iter(stack.left_out.values()), groups[0].name)
        raise RecipeError(
            f"only {len(cases)} case(s) are new to a network of each recipe, and {_LEAST_CASES} "
            f"are needed (every network of {first!r}, for one, saw the others); train the runs "
            "with more folds: --folds all, with split.kind k-fold"
        )
    data = replace(
        own.data, cases=cases, channels=stack.channels, channel_indices=None,
        annotated={case.name: own.data.annotated[case.name] for case in cases},
        # As `open_run` would find it.
        fingerprint=cases_sha256(cases),
    )  # fmt: skip
    recipe = _recipe(own, _finest_frame(groups, cases), min(_FOLDS, n_patients), seed, threads)
    recipe = recipe.with_overrides([f"phases.0.epochs={epochs}"] if epochs is not None else [])
    recipe = recipe.within(minutes, cpu_minutes)
    arrays = ArrayCache(cache or output / "cache")
    require_outputs([output / STACK_FILE, arrays.root / "entry"], new_folders=True)
    output.mkdir(parents=True, exist_ok=True)
    splits = tuple(make_splits(recipe, data))
    run = Run(output, recipe, data.plan(recipe), data, splits, arrays)
    write_json(output / STACK_FILE, stack.to_json())
    write_start(run)
    preparer = MapPreparer(
        run.plan, data.label_values, None, arrays, data.annotated, data.ignored_values,
        sources=stack.sources, scan_channels=own.data.channel_indices,
    )  # fmt: skip
    with Display(console) as display:
        for line in stack.lines():
            display.say(line)
        on_case = display.count("maps of networks that did not see the case", len(cases))
        for case in cases:
            preparer.prepare(case)
            on_case(case.name)
    preparer.models.clear()
    combiners = train_run(run, console, prepare=preparer.prepare)
    with Display(console) as display:
        told, dice = _comparison(run, stack)
        for line in told:
            display.say(line)
    write_model(output / MODEL_FILE, _joined(run, stack, combiners, dice))
    return run


def _recipe(own: Run, frame: Frame, n_folds: int, seed: int, threads: int | None) -> Recipe:
    """The training of the combiner; the loss and Adam are paper 002's."""
    phase = Phase(
        sampler=Named(name="slices"),
        augmentation=[],
        loss=[LossTerm(name="tanimoto-cross-entropy")],
        optimiser=Named(name="Adam", options={"lr": 1e-3}),
        schedule={"name": "constant"},  # type: ignore[arg-type]
        batch_size=8,
        epochs=20,
        patience=5,
    )
    return Recipe(
        name="stack",
        description="A network that combines the maps of others.",
        data=own.recipe.data.model_copy(update={"channels": None}),
        network=Named(name="combiner"),
        plan=StageSettings(
            frame=frame,
            patch=Patch("whole", "whole", 1),
            intensity=_AS_IT_IS,
            largest_component=own.recipe.plan.largest_component,
        ),
        split=SplitSection(kind="k-fold", n_folds=n_folds, seed=seed),
        phases=[phase],
        training=TrainingSection(folds="all", precision="32", seed=seed, threads=threads),
    )


def _finest_frame(groups: Sequence[Group], cases: Sequence[Case]) -> Frame:
    """Slices of the run whose frame has most pixels in-plane, of the first of several."""
    runs = {id(model.run): model.run for group in groups for model in group.ranked}.values()
    sizes = [_in_plane(run, cases) for run in runs]
    n, run = max(zip(sizes, runs, strict=True), key=lambda pair: pair[0][0] * pair[0][1])
    return Frame(
        orientation=run.plan.final.frame.orientation,
        axes=(Axis(size=n[0]), Axis(size=n[1]), Axis()),
        antialias=run.plan.final.frame.antialias,
    )


def _in_plane(run: Run, cases: Sequence[Case]) -> tuple[int, int]:
    """Pixels of a run's frame in-plane; where scans decide, the median of some."""
    i, j, _ = (axis.size for axis in run.plan.final.frame.axes)
    if i is not None and j is not None:
        return i, j
    scans = (case.image for case in cases[:_MEASURED_CASES])
    shapes = [planned_frame(scan, run.plan.final)[1] for scan in scans]
    return round(median(n[0] for n in shapes)), round(median(n[1] for n in shapes))


def _comparison(run: Run, stack: Stack) -> tuple[list[str], dict[str, float]]:
    """What the members and the stack have on the same test cases, for the user."""
    rows: list[tuple[str, dict[str, float]]] = []
    # Members for which the same networks stand have the same scores.
    alike: dict[tuple[FoldModel, ...], list[str]] = {}
    for name, *models in zip(stack.names, *stack.sources.values(), strict=True):
        alike.setdefault(tuple(models), []).append(name)
    for stand_ins, names in alike.items():
        of_model: dict[FoldModel, set[str]] = {}
        for case, model in zip(stack.sources, stand_ins, strict=True):
            of_model.setdefault(model, set()).add(case)
        parts = ((model.run, model.fold, cases) for model, cases in of_model.items())
        rows.append((", ".join(names), _mean_dice(parts)))
    every = set(stack.sources)
    dice_of_stack = _mean_dice((run, number, every) for number in run.folds)
    rows.append(("the stack", dice_of_stack))
    told = [f"mean Dice over {len(every)} test case(s), by networks that did not see them:"]
    told += [
        f"  {name}: {', '.join(f'{label} {dice:.3f}' for label, dice in found.items()) or 'none'}"
        for name, found in rows
    ]
    return told, dice_of_stack


def _mean_dice(parts: Iterable[tuple[Run, int, set[str]]]) -> dict[str, float]:
    """By label, the mean over the test cases of runs' folds, those of some, where it is defined."""
    found: dict[str, list[float]] = {}
    for run, fold, cases in parts:
        for score in read_scores(run.fold_folder(fold) / SCORES_FILE).cases:
            dice = score.metrics["dice"]
            if score.case in cases and dice is not None:
                found.setdefault(score.label, []).append(dice)
    return {label: fmean(values) for label, values in found.items()}


def _joined(
    run: Run, stack: Stack, combiners: Sequence[Path], dice: Mapping[str, float]
) -> ModelFile:
    """Members and the combiners of all folds, averaged, as one model."""
    folds = [read_model(path) for path in combiners]
    members = [read_model(model.path) for model in stack.members]
    networks = [member for fold in folds for member in fold.members]
    joined = join_stack(members, stack.names, folds[0].plan.final, networks)
    provenance = joined.provenance
    update = {
        "recipe": run.recipe.model_dump(mode="json"),
        "versions": versions(),
        # Of networks that did not see the cases, and some of which are not in the file.
        "training": {"out_of_fold_dice": dict(dice), **provenance.training},
    }
    return replace(joined, provenance=provenance.model_copy(update=update))
