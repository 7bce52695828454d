"""The cells of a study: what each one trains, settled and looked at before the first starts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from leanseg.datasets import Dataset, Split
from leanseg.errors import LeansegError, RecipeError
from leanseg.files import read_parsed
from leanseg.studies.definition import Settings, Study
from leanseg.training.recipe import Recipe, load_recipe

STUDY_FILE, CELLS_FOLDER, DATA_FOLDER = "study.json", "cells", "data"
# What is scored with a cell's model besides, in the cell's folder.
ELSEWHERE_FOLDER = "elsewhere"
_FORMAT, _VERSION = "leanseg-study", 1


class Cell(BaseModel):
    """One training of a study.

    Attributes:
        name: Of its folder.
        method: The row that it belongs to: a recipe, and where there are several, an override.
        recipe: The recipe's name in the study.
        override: That of the override; "" without any.
        dataset: What it trains on.
        fold: Number of the fold.
        seed: Of its training.
        memory_bytes: What it needs, about.
        settled: Its recipe, with every default written out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    method: str
    recipe: str
    override: str
    dataset: str
    fold: int
    seed: int
    memory_bytes: int = 0
    settled: Recipe | None = None

    @property
    def row(self) -> tuple[str, str, str]:
        """What cells share that differ in fold and seed alone."""
        return self.recipe, self.dataset, self.override

    @property
    def training(self) -> Recipe:
        """The settled recipe."""
        assert self.settled is not None
        return self.settled


class ResolvedStudy(BaseModel):
    """What `study.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = _FORMAT
    version: int = _VERSION
    leanseg: str
    study: Study
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


def read_resolved(folder: Path) -> ResolvedStudy:
    """The study in a folder.

    Raises:
        RecipeError: If there is none, or it is damaged.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise RecipeError(f"{folder}: is not a study (it has no {STUDY_FILE}); give its folder")
    remedy = "start the study in another folder"
    return read_parsed(path, ResolvedStudy.model_validate_json, remedy, RecipeError)


def matrix(study: Study) -> list[Cell]:
    """The cells of a study, not settled yet.

    Raises:
        RecipeError: If two have the same name.
    """
    overrides = study.overrides or {"": {}}
    axes = product(study.folds, study.seeds, study.trained_on, study.recipes, overrides)
    cells: dict[str, Cell] = {}
    for fold, seed, dataset, recipe, override in axes:
        method = f"{recipe}, {override}" if override else recipe
        parts = [recipe, override, dataset, f"fold{fold}", f"seed{seed}"]
        name = "-".join(_as_file_name(part) for part in parts if part)
        cell = Cell(
            name=name,
            method=method,
            recipe=recipe,
            override=override,
            dataset=dataset,
            fold=fold,
            seed=seed,
        )
        # Some file systems take small letters for capitals.
        other = cells.setdefault(name.casefold(), cell)
        if other is not cell:
            raise RecipeError(
                f"study {study.name!r}: two cells are called {name} ({_told(other)}; "
                f"{_told(cell)}); rename one, or list every fold and seed once"
            )
    return list(cells.values())


def _as_file_name(part: str) -> str:
    return re.sub(r"[^\w.+]+", "-", part).strip("-.")


def _told(cell: Cell) -> str:
    return f"{cell.method} on {cell.dataset}, fold {cell.fold}, seed {cell.seed}"


def settle(
    study: Study,
    datasets: Mapping[str, Dataset],
    before: ResolvedStudy | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[Cell], list[str]]:
    """The cells with their recipes, each of which could start now.

    Args:
        study: The study.
        datasets: Its datasets by name.
        before: The same study as it was settled earlier, of which plans are kept.
        tell: Called before something that takes a while.

    Returns:
        The cells, and what is to be said of them.

    Raises:
        LeansegError: If a recipe, split, network or dataset cannot be used; names the cell.
    """
    from leanseg.training.run import plan_start
    from leanseg.training.runtime import training_bytes

    cells = matrix(study)
    known = {} if before is None else {cell.name: cell for cell in before.cells}
    recipes: dict[tuple[str, str, str], tuple[Recipe, int]] = {}
    tested: dict[tuple[str, int], dict[str, tuple[str, ...]]] = {}
    splits: dict[tuple[str, str, str], list[Split]] = {}
    settled = []
    for cell in cells:
        row = cell.row
        with _named(study, cell):
            if row not in recipes:
                dataset = datasets[cell.dataset]
                recipe, memory = _recipe(study, cell, dataset, before, tell)
                first = _of_cell(recipe, cell)
                data = dataset.read_as(recipe.data.geometry)
                selected, plan, splits[row] = plan_start(first, data)
                recipes[row] = recipe, memory or training_bytes(first, plan)
                for other in study.scored_elsewhere(cell.dataset):
                    _require_classes(study, recipe, other, datasets[other], selected.label_values)
            recipe, memory = recipes[row]
            if cell.fold >= len(splits[row]):
                raise RecipeError(
                    f"'folds' has {cell.fold}, but the split has {len(splits[row])} fold(s), "
                    "counted from 0; choose among these"
                )
            test = tuple(sorted(splits[row][cell.fold].test))
            if not test and not study.scored_elsewhere(cell.dataset):
                raise RecipeError("the split leaves no case to test; give the study a 'split'")
            tested.setdefault((cell.dataset, cell.fold), {}).setdefault(cell.method, test)
            own = _of_cell(recipe, cell)
            earlier = known.get(cell.name)
            if earlier is not None and earlier.settled != own:
                raise RecipeError(
                    "its recipe is not the one that it was started with; start the study anew in "
                    "another folder (--output), or change it back"
                )
            settled.append(cell.model_copy(update={"settled": own, "memory_bytes": memory}))
    return settled, list(_unlike(tested))


class _named:  # noqa: N801  used as a context, like a function
    """Name the cell in what is wrong with it."""

    def __init__(self, study: Study, cell: Cell) -> None:
        self._where = f"study {study.name!r}, cell {cell.name}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, LeansegError):
            raise type(error)(f"{self._where}: {error}") from error


def _recipe(
    study: Study,
    cell: Cell,
    dataset: Dataset,
    before: ResolvedStudy | None,
    tell: Callable[[str], None],
) -> tuple[Recipe, int]:
    """The recipe of a row, for whichever fold and seed, and what it needs if that is known."""
    source = study.recipes[cell.recipe].recipe
    changes = _changes(study, cell)
    budget = study.budget_of(cell.recipe)
    if source is not None:
        recipe = load_recipe(source, changes)
        return recipe.within(budget.minutes, budget.cpu_minutes, budget.steps), 0
    if before is not None:
        for earlier in (each for each in before.cells if each.row == cell.row):
            asked = _changes(before.study, earlier), before.study.budget_of(earlier.recipe)
            if asked == (changes, budget):
                return earlier.training, earlier.memory_bytes
    from leanseg.progress import quiet_console
    from leanseg.training.planning import budget_of, plan_training

    tell(f"planning {cell.method} for {cell.dataset}")
    planned = plan_training(
        dataset,
        budget_of(budget.minutes, budget.cpu_minutes, budget.steps),
        overrides=changes,
        console=quiet_console(),
    )
    return planned.recipe, int(planned.card.memory_bytes or 0)


def _changes(study: Study, cell: Cell) -> list[str]:
    """What is changed in a row's recipe, from what is general to what is special."""
    settings: list[Settings] = [
        {"name": cell.method, "training.threads": study.threads, "training.folds": "all"},
        {} if study.split is None else {"split": study.split},
        study.set,
        study.recipes[cell.recipe].set,
        study.datasets[cell.dataset].set,
        study.overrides.get(cell.override, {}),
    ]
    return [f"{key}={json.dumps(value)}" for each in settings for key, value in each.items()]


def _of_cell(recipe: Recipe, cell: Cell) -> Recipe:
    return recipe.with_overrides([f"training.folds=[{cell.fold}]", f"training.seed={cell.seed}"])


def data_recipe(study: Study, recipe: Recipe, dataset: str) -> Recipe:
    """A recipe for another dataset than its own: what that says of the data."""
    own = study.datasets[dataset].set
    changes = {key: value for key, value in own.items() if key.split(".")[0] == "data"}
    return recipe.with_overrides([f"{key}={json.dumps(value)}" for key, value in changes.items()])


def _require_classes(
    study: Study, recipe: Recipe, name: str, other: Dataset, classes: Mapping[str, Any]
) -> None:
    """Refuse to score on a dataset that has other classes than were trained.

    Raises:
        LeansegError: Naming the dataset and both.
    """
    from leanseg.training.data import select_data

    found = select_data(other, data_recipe(study, recipe, name)).label_values
    if {*found} != {*classes}:
        raise RecipeError(
            f"its model labels {', '.join(classes)}, but dataset {name!r} has {', '.join(found)}; "
            f"make them alike with datasets.{name}.set: {{data.labels: ...}}"
        )


def _unlike(tested: Mapping[tuple[str, int], Mapping[str, tuple[str, ...]]]) -> Iterator[str]:
    """What to say of methods that are not tested on the same cases."""
    said = set()
    for (dataset, _), by_method in tested.items():
        first, *others = by_method
        for other in others:
            if by_method[other] != by_method[first] and (dataset, other) not in said:
                said.add((dataset, other))
                yield (
                    f"on {dataset}, {other} tests other cases than {first}; a 'split' of the study "
                    "makes them alike"
                )
