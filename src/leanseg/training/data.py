"""A dataset as a recipe uses it: which channels, which classes, which cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from leanseg.datasets import Case, Dataset, find_label, is_ignore, without_ignore
from leanseg.errors import DatasetError, RecipeError
from leanseg.files import first_mistake
from leanseg.frames import ArrayCache, cases_sha256, containment, with_training_scaling
from leanseg.plan import Plan, Stage, StageSettings, TrainingScaling
from leanseg.training.recipe import Recipe
from leanseg.training.seeds import Role, derive_seed


@dataclass(frozen=True)
class TrainingData:
    """What training needs to know about a dataset.

    Attributes:
        name: The dataset's name.
        root: Its folder.
        layout: Its layout.
        cases: The cases that have a label, sorted by name.
        label_values: For each class of the network, the label files' values merged into it.
        channels: Names of the network's input channels.
        channel_indices: Where these are in the files; None where the files hold just them.
        annotated: For each case, the classes that it annotates; the others are unknown there.
        fingerprint: SHA-256 over the names and contents of all files.
        ignored_values: The label files' values that mark voxels of which nothing is known.
    """

    name: str
    root: Path
    layout: str
    cases: tuple[Case, ...]
    label_values: dict[str, list[int]]
    channels: tuple[str, ...]
    channel_indices: tuple[int, ...] | None
    annotated: dict[str, tuple[str, ...]]
    fingerprint: str
    ignored_values: tuple[int, ...] = ()

    def case(self, name: str) -> Case:
        """The case called `name`."""
        return next(case for case in self.cases if case.name == name)

    def plan(self, recipe: Recipe) -> Plan:
        """The plan: the recipe's preprocessing with this data's classes and channels.

        Raises:
            RecipeError: If they make none.
        """
        settings = {name: getattr(recipe.plan, name) for name in StageSettings.model_fields}
        try:
            inside = containment(self.label_values)
            stage = Stage(labels=tuple(self.label_values), inside=inside, **settings)
            return Plan(channels=self.channels, stages=(stage,))
        except ValidationError as error:
            msg = f"recipe {recipe.name!r}: 'plan' cannot be used ({first_mistake(error)})"
            raise RecipeError(msg) from error

    def settled(
        self,
        plan: Plan,
        names: Iterable[str],
        seed: int,
        cache: ArrayCache,
        on_case: Callable[[str], None] = lambda name: None,
    ) -> Plan:
        """The plan with numbers where it leaves the scaling to training volumes.

        Args:
            plan: The plan.
            names: The training cases, of which as many as it asks for are drawn.
            seed: The run's seed.
            cache: Where each volume's numbers are kept.
            on_case: Called with the name of each case that is looked at.
        """
        asked = plan.final.intensity.scaling
        if not isinstance(asked, TrainingScaling):
            return plan
        generator = np.random.default_rng(derive_seed(seed, Role.INTENSITY))
        drawn = generator.permutation(sorted(names))[: asked.training_volumes]
        cases = [self.case(name) for name in drawn]
        return with_training_scaling(plan, cases, self.channel_indices, cache, on_case)

    def to_json(self) -> dict[str, Any]:
        """The content of a run's `data.json`."""
        cases = [case.to_json() for case in self.cases]
        return {**vars(self), "root": str(self.root), "cases": cases}


def select_data(dataset: Dataset, recipe: Recipe) -> TrainingData:
    """What a recipe takes from a dataset.

    Raises:
        DatasetError: If no case has a label that the recipe asks for.
        RecipeError: If the recipe names a channel or label that the dataset does not have.
    """
    labelled = [case.with_paths(Path.resolve) for case in dataset.cases if case.label_parts]
    if not labelled:
        raise DatasetError(
            f"{dataset.root}: no case has a label file to learn from; check the layout"
        )
    classes = _classes(dataset, recipe)
    annotated = {case.name: _annotated_classes(case, classes) for case in labelled}
    for name in classes:
        if not any(name in known for known in annotated.values()):
            raise DatasetError(
                f"{dataset.root}: no case annotates all that class {name!r} is made of; "
                "correct 'data.labels', or mark what may be absent with '?'"
            )
    cases = tuple(case for case in labelled if annotated[case.name])
    channels, indices = _select_channels(dataset, recipe)
    return TrainingData(
        name=dataset.name,
        root=dataset.root.resolve(),
        layout=dataset.layout,
        cases=cases,
        label_values={
            name: [value for part in parts for value in part.values]
            for name, parts in classes.items()
        },
        channels=channels,
        channel_indices=indices,
        annotated={case.name: annotated[case.name] for case in cases},
        fingerprint=cases_sha256(cases),
        ignored_values=_ignored_values(dataset, classes),
    )


@dataclass(frozen=True)
class _ClassPart:
    """One of the dataset's labels that a class is made of; `label` None where it has no name."""

    label: str | None
    values: tuple[int, ...]
    optional: bool = False


def _classes(dataset: Dataset, recipe: Recipe) -> dict[str, list[_ClassPart]]:
    wanted = recipe.data.labels or {
        name: [value] for name, value in without_ignore(dataset.labels).items()
    }
    if not wanted:
        msg = f"{dataset.root}: names no foreground label; name them with 'data.labels'"
        raise DatasetError(msg)
    classes = {
        name: [_class_part(dataset, recipe, name, entry) for entry in entries]
        for name, entries in wanted.items()
    }
    try:
        containment({n: [v for p in parts for v in p.values] for n, parts in classes.items()})
    except RecipeError as error:
        raise RecipeError(f"recipe {recipe.name!r}: in 'data.labels' {error}") from None
    return classes


def _ignored_values(dataset: Dataset, classes: dict[str, list[_ClassPart]]) -> tuple[int, ...]:
    """Values of the label "ignore", where no class is made of them."""
    named = {value for parts in classes.values() for part in parts for value in part.values}
    return tuple(v for name, v in dataset.labels.items() if is_ignore(name) and v not in named)


def _class_part(dataset: Dataset, recipe: Recipe, name: str, entry: int | str) -> _ClassPart:
    if isinstance(entry, int):
        label = next((n for n, value in dataset.labels.items() if value == entry), None)
        return _ClassPart(label, (entry,))
    optional = entry.endswith("?")
    label = find_label(entry.removesuffix("?"), dataset.labels)
    if label is None and not optional:
        key = f"recipe {recipe.name!r}: 'data.labels.{name}'"
        raise no_such_name(key, entry, dataset.root, dataset.labels)
    return _ClassPart(label, () if label is None else (dataset.labels[label],), optional)


def no_such_name(key: str, name: str, where: object, known: Iterable[str]) -> RecipeError:
    """What to say of a recipe that names what the data do not have."""
    return RecipeError(
        f"{key} names {name!r}, but {where} has {', '.join(known)}; choose among these"
    )


def _annotated_classes(case: Case, classes: dict[str, list[_ClassPart]]) -> tuple[str, ...]:
    """The classes all of whose parts the case annotates; a label without a name counts as such."""
    return tuple(
        name
        for name, parts in classes.items()
        if all(part.optional or part.label is None or case.annotates(part.label) for part in parts)
    )


def _select_channels(
    dataset: Dataset, recipe: Recipe
) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    wanted = recipe.data.channels
    if wanted is None or tuple(wanted) == dataset.channels:
        return dataset.channels, None
    for name in wanted:
        if name not in dataset.channels:
            key = f"recipe {recipe.name!r}: 'data.channels'"
            raise no_such_name(key, name, dataset.root, dataset.channels)
    return tuple(wanted), tuple(dataset.channels.index(name) for name in wanted)
