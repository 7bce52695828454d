"""A run's folder: the names of its files, and the one way in which they are read.

What later reading relies on is written once and never changed: `sha256sums.txt` beside it, which
`sha256sum -c` reads, too, says what it was. A file that is another is refused, whatever it holds.
The recipe alone may be edited before a run is resumed, to train longer for example; that is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from leanseg.datasets import Split, read_splits
from leanseg.errors import FileFormatError, RecipeError
from leanseg.files import read_parsed, require_file, write_text
from leanseg.frames import ArrayCache
from leanseg.inference import Model, load_model
from leanseg.modelfile import read_model
from leanseg.plan import Plan
from leanseg.training.data import TrainingData
from leanseg.training.recipe import Recipe, read_recipe

RECIPE_FILE, PLAN_FILE, SPLITS_FILE = "recipe.yaml", "plan.json", "splits.json"
DATA_FILE, ENVIRONMENT_FILE, CHECK_FILE = "data.json", "environment.json", "check.json"
MODEL_FILE, ARRAYS_FOLDER = "model.leanseg", "data"
# Of a run whose cases are other networks' maps.
STACK_FILE = "stack.json"
METRICS_FILE, SUMMARY_FILE = "metrics.jsonl", "summary.json"
SCORES_FILE, PREDICTIONS_FOLDER = "test/scores.json", "test/predictions"
SUMS_FILE = "sha256sums.txt"
# With the recipe, what settles a run's weights.
START_FILES = (PLAN_FILE, DATA_FILE, SPLITS_FILE)
# Those of a fold that is done.
END_FILES = (METRICS_FILE, SUMMARY_FILE, SCORES_FILE)
_REMEDY = "restore it or train again"
_Content = TypeVar("_Content")


@dataclass(frozen=True)
class Run:
    """An experiment's folder and what it was started with.

    Example:
        >>> run = leanseg.resume("runs/tiny")
        fold 0: already done
        >>> run.recipe.network.name, run.folds, run.model.labels
        ('combiner', [0], {'liver': 1})
    """

    folder: Path
    recipe: Recipe
    plan: Plan
    data: TrainingData
    splits: tuple[Split, ...]
    cache: ArrayCache

    @property
    def folds(self) -> list[int]:
        """The folds that this run trains."""
        wanted = self.recipe.training.folds
        return list(range(len(self.splits))) if wanted == "all" else list(wanted)

    def fold_folder(self, number: int) -> Path:
        """Where a fold is trained."""
        return self.folder / f"fold_{number}"

    def fold_id(self, number: int) -> str:
        """What no fold of another run has: a hash of what it was started with.

        Raises:
            FileFormatError: If the run's sums cannot be read.
        """
        return hashlib.sha256(f"{_sum(self.folder, SUMS_FILE)}{number}".encode()).hexdigest()

    @property
    def warnings(self) -> list[str]:
        """What to say of a recipe that was edited after the run started."""
        try:
            require_unchanged(self.folder, [RECIPE_FILE])
        except FileFormatError:
            return [f"{self.folder / RECIPE_FILE} was changed since the run started."]
        return []

    @property
    def model_files(self) -> list[Path]:
        """The model files of the folds that are done."""
        files = [self.fold_folder(number) / MODEL_FILE for number in self.folds]
        return [path for path in files if path.is_file()]

    @cached_property
    def model(self) -> Model:
        """The first fold's model, ready to predict.

        Raises:
            RecipeError: If no fold is done.
        """
        if not self.model_files:
            msg = f"{self.folder}: no fold is trained to its end; continue with leanseg.resume"
            raise RecipeError(msg)
        return load_model(self.model_files[0], allow_imports=True)


def read_run(folder: Path, cache: Path | None = None) -> Run:
    """Read what a run was started with; its data are not looked at.

    Args:
        folder: A folder that `start_run` made.
        cache: Folder for prepared arrays; None keeps them in the run.

    Raises:
        RecipeError: If the folder is not a run, or one of before splits had three parts.
        LeansegError: If one of its files is missing, damaged, or was changed.
    """
    if not (folder / RECIPE_FILE).exists():
        msg = f"{folder}: is not a run (it has no {RECIPE_FILE}); give a folder that train made"
        raise RecipeError(msg)
    if any(folder.glob("fold_*/validation/scores.json")):
        raise RecipeError(
            f"{folder}: is a run of an older leanseg, whose validation cases both chose the epoch "
            "and were scored; train again (its model files can be used as they are)"
        )
    require_unchanged(folder, START_FILES)
    recipe = read_recipe(folder / RECIPE_FILE)
    plan = _read(folder / PLAN_FILE, Plan.model_validate_json)
    data = _read(folder / DATA_FILE, TypeAdapter(TrainingData).validate_json)
    splits = tuple(read_splits(folder / SPLITS_FILE, [case.name for case in data.cases]))
    require_folds(recipe, splits)
    return Run(folder, recipe, plan, data, splits, ArrayCache(cache or folder / "cache"))


def require_folds(recipe: Recipe, splits: Sequence[Split]) -> None:
    """Refuse folds that the split does not have.

    Raises:
        RecipeError: Naming how many there are.
    """
    wanted = recipe.training.folds
    if wanted != "all" and max(wanted) >= len(splits):
        raise RecipeError(
            f"recipe {recipe.name!r}: 'training.folds' asks for {wanted}, but the split has "
            f"{len(splits)} fold(s), counted from 0; choose among these"
        )


def read_record(path: Path) -> Mapping[str, Any]:
    """A JSON file that holds a mapping, such as `environment.json`.

    Raises:
        FileFormatError: If it is missing, damaged, or was changed.
    """
    require_unchanged(path.parent, [path.name])
    return _read(path, TypeAdapter(dict[str, Any]).validate_json)


def is_done(folder: Path) -> bool:
    """Whether a fold is trained to its end, and all that it left is whole.

    Raises:
        LeansegError: If it is done, and one of its files was damaged since.
    """
    done = (folder / SUMS_FILE).exists() and (folder / MODEL_FILE).exists()
    if done:
        require_unchanged(folder, END_FILES)
        read_model(folder / MODEL_FILE)
    return done


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the sums of files that are there; with those of its end a fold is done."""
    write_text(folder / SUMS_FILE, "".join(_sum(folder, name) for name in names))


def require_unchanged(folder: Path, names: Sequence[str]) -> None:
    """Refuse files that are not what their folder's sums say; without sums, all may pass.

    Raises:
        FileFormatError: Naming the first.
    """
    if not (folder / SUMS_FILE).exists():
        return
    listed = _read(folder / SUMS_FILE, lambda text: text.splitlines(keepends=True))
    for name in names:
        if _sum(folder, name) not in listed:
            msg = f"{folder / name}: was changed since (see {SUMS_FILE}); {_REMEDY}"
            raise FileFormatError(msg)


def _sum(folder: Path, name: str) -> str:
    try:
        return f"{hashlib.sha256(require_file(folder / name).read_bytes()).hexdigest()}  {name}\n"
    except OSError as error:
        msg = f"{folder / name}: cannot be read ({error.strerror}); {_REMEDY}"
        raise FileFormatError(msg) from error


def _read(path: Path, parse: Callable[[str], _Content]) -> _Content:
    return read_parsed(path, parse, _REMEDY, FileFormatError)
