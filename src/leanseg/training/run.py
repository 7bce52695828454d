"""A run: a folder with one experiment, started, interrupted and resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from leanseg.datasets import (
    Dataset,
    Split,
    convert,
    merge_datasets,
    open_dataset,
    read_splits,
    write_splits,
)
from leanseg.datasets.check import CheckResult, check
from leanseg.errors import DatasetError, LeansegError, RecipeError
from leanseg.files import write_json, write_text
from leanseg.frames import ArrayCache, CasePreparer, PreparedCase
from leanseg.inference import Model, load_model
from leanseg.plan import Axis, Plan, StageSettings
from leanseg.progress import Display
from leanseg.training.data import TrainingData, fingerprint, select_data
from leanseg.training.environment import describe_environment
from leanseg.training.recipe import Recipe, validate_recipe
from leanseg.training.splitting import make_splits

if TYPE_CHECKING:
    from rich.console import Console

RECIPE_FILE, PLAN_FILE, SPLITS_FILE = "recipe.yaml", "plan.json", "splits.json"
DATA_FILE, ENVIRONMENT_FILE, CHECK_FILE = "data.json", "environment.json", "check.json"
MODEL_FILE, ARRAYS_FOLDER = "model.leanseg", "data"
_CHECK_WORKERS = 2


@dataclass(frozen=True)
class Run:
    """An experiment's folder and what it was started with.

    Example:
        >>> run = leanseg.resume("runs/tiny")
        fold 0: already done
        >>> run.recipe.network.name, run.folds, run.model.labels
        ('monet', [0], {'liver': 1})
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

    @property
    def model_files(self) -> list[Path]:
        """The model files of the folds that are done."""
        files = [self.folder / f"fold_{number}" / MODEL_FILE for number in self.folds]
        return [path for path in files if path.is_file()]

    @cached_property
    def model(self) -> Model:
        """The first fold's model, ready to predict.

        Raises:
            RecipeError: If no fold is done.
        """
        if not self.model_files:
            msg = f"{self.folder}: no fold is trained to its end; go on with leanseg.resume"
            raise RecipeError(msg)
        return load_model(self.model_files[0], allow_imports=True)


def start_run(
    recipe: Recipe,
    data: Dataset | Path | Sequence[Path],
    output: Path,
    cache: Path | None = None,
    *,
    check: bool = True,
    console: Console | None = None,
) -> Run:
    """Create a run's folder; nothing is trained yet.

    Args:
        recipe: What to do.
        data: A dataset, its folder in any registered layout, or folders of several that train
            together, their labels matched by name.
        output: The run's folder; has to be new or empty.
        cache: Folder for prepared arrays, to share between runs; None keeps them in the run.
        check: Look at every scan and label map first, and refuse data that are wrong.
        console: Where the check is told; None is standard output.

    Returns:
        The run.

    Raises:
        LeansegError: If the data, the split or the folder cannot be used.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        hint = "resume it with --resume" if (output / RECIPE_FILE).is_file() else "give a new one"
        msg = f"{output}: is not an empty folder; {hint}"
        raise RecipeError(msg)
    dataset = data if isinstance(data, Dataset) else _open_datasets(data, recipe)
    dataset = dataset.read_as(recipe.data.geometry)
    selected = select_data(dataset, recipe)
    splits = make_splits(recipe, selected)
    plan = selected.plan(recipe)
    _check_network(recipe, plan)
    wanted = recipe.training.folds
    if wanted != "all" and (not wanted or max(wanted) >= len(splits)):
        msg = (
            f"recipe {recipe.name!r}: 'training.folds' asks for {wanted}, but the split has "
            f"{len(splits)} fold(s), counted from 0; choose among these"
        )
        raise RecipeError(msg)
    dataset = replace(dataset, cases=selected.cases)
    checked = _check_data(dataset, splits, console) if check else None
    output.mkdir(parents=True, exist_ok=True)
    if any(source.volume is not None for case in selected.cases for source in case.sources):
        selected = _stored(dataset, recipe, output / ARRAYS_FOLDER)
        splits = make_splits(recipe, selected)
    write_json(output / PLAN_FILE, plan.model_dump(mode="json"))
    write_splits(output / SPLITS_FILE, splits)
    write_json(output / DATA_FILE, selected.to_json())
    if checked is not None:
        checked.to_json(output / CHECK_FILE)
    write_json(output / ENVIRONMENT_FILE, describe_environment())
    # The recipe comes last: a folder that has it can be resumed.
    write_text(output / RECIPE_FILE, recipe.to_yaml())
    return Run(output, recipe, plan, selected, tuple(splits), ArrayCache(cache or output / "cache"))


def _stored(dataset: Dataset, recipe: Recipe, folder: Path) -> TrainingData:
    """The data with its arrays written as files, so that the run can be resumed."""
    files = open_dataset(convert(dataset, "plain", folder).folder)
    return select_data(replace(files, name=dataset.name), recipe)


def _open_datasets(folders: Path | Sequence[Path], recipe: Recipe) -> Dataset:
    listed = [folders] if isinstance(folders, Path) else folders
    return merge_datasets([open_dataset(folder, recipe.data.layout) for folder in listed])


def _check_data(dataset: Dataset, splits: Sequence[Split], console: Console | None) -> CheckResult:
    """What `leanseg check` finds in the cases of a run.

    Raises:
        DatasetError: If it finds an error.
    """
    with Display(console) as display:
        on_case = display.count("checking the data", len(dataset))
        workers = _CHECK_WORKERS if len(dataset.cases) > 2 * _CHECK_WORKERS else 0
        found = check(dataset, workers=workers, on_case=on_case, splits=splits)
        if not found.may_train:
            first = next(finding for finding in found.findings if finding.severity == "error")
            msg = (
                f"{found.summary()} First of all: {first.message}; see everything with `leanseg "
                "check`, or train all the same with --no-check"
            )
            raise DatasetError(msg)
        if found.findings:
            display.say(f"checked: {found.summary()}")
        notes = [f.message for f in found.findings if f.kind == "header-note"]
        if notes:
            others = f" (and {len(notes) - 1} more of the kind)" if notes[1:] else ""
            display.say(f"note: {notes[0]}{others}")
    return found


def open_run(folder: Path, cache: Path | None = None) -> Run:
    """Open a run to resume it or to look at it.

    Args:
        folder: A folder that `start_run` made.
        cache: As in `start_run`.

    Raises:
        RecipeError: If the folder is not a run.
        DatasetError: If the data changed since the run started.
    """
    if not (folder / RECIPE_FILE).is_file():
        msg = f"{folder}: is not a run (it has no {RECIPE_FILE}); give a folder that train made"
        raise RecipeError(msg)
    content = yaml.safe_load((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    recipe = validate_recipe(content, str(folder / RECIPE_FILE))
    plan = Plan.model_validate_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
    data = TrainingData.from_json(json.loads((folder / DATA_FILE).read_text(encoding="utf-8")))
    sources = [source for case in data.cases for source in case.sources]
    missing = [source.path for source in sources if not source.exists()]
    if missing:
        msg = f"{folder}: its file {missing[0]} is not there any more; put the data back"
        raise DatasetError(msg)
    if fingerprint(data.cases) != data.fingerprint:
        msg = f"{folder}: the scans or labels in {data.root} changed since it started; start anew"
        raise DatasetError(msg)
    splits = tuple(read_splits(folder / SPLITS_FILE))
    return Run(folder, recipe, plan, data, splits, ArrayCache(cache or folder / "cache"))


def train_run(run: Run, console: Console | None = None) -> list[Path]:
    """Train every fold of a run that is not done, and finish each with a model file.

    Args:
        run: New, or opened to be resumed.
        console: Where progress is told; None is standard output.

    Returns:
        The model files, one a fold.
    """
    from leanseg.training.finish import SUMMARY_FILE, finish_fold
    from leanseg.training.loop import FoldTrainer

    models: list[Path] = []
    for number in run.folds:
        folder = run.folder / f"fold_{number}"
        folder.mkdir(exist_ok=True)
        models.append(folder / MODEL_FILE)
        with Display(console) as display:
            if (folder / SUMMARY_FILE).is_file():
                display.say(f"fold {number}: already done")
                continue
            split = run.splits[number]
            display.say(
                f"fold {number}: {len(split.train)} training and {len(split.validation)} "
                f"validation cases of {run.data.name}; network {run.recipe.network.name}"
            )
            cases = _prepared(run, split, display)
            trainer = FoldTrainer(folder, run.recipe, run.plan, *cases, display)
            finish_fold(run, number, trainer.network, trainer.fit(), display)
    return models


def _prepared(
    run: Run, split: Split, display: Display
) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """The training and the validation cases of a fold."""
    data = run.data
    preparer = CasePreparer(
        run.plan, data.label_values, data.channel_indices, run.cache, data.annotated
    )
    on_case = display.count("preparing cases", len(split.train) + len(split.validation))

    def prepared(name: str) -> PreparedCase:
        case = preparer.prepare(data.case(name))
        on_case(name)
        return case

    return [prepared(name) for name in split.train], [prepared(name) for name in split.validation]


def _check_network(recipe: Recipe, plan: Plan) -> None:
    """Refuse what cannot work before a folder is made: names, options, sizes.

    Raises:
        RecipeError: If a name or option is not known, or the network does not take the slices.
        GeometryError: If their size does not fit the network.
    """
    import torch

    from leanseg.augmentation import build_augmentation
    from leanseg.losses import build_loss
    from leanseg.training.runtime import build_network

    build_loss(recipe.loss.name, **recipe.loss.options)
    for augmentation in recipe.augmentation:
        build_augmentation(augmentation.name, **augmentation.options)
    _require_slices(recipe, plan.final)
    shape = (1, *plan.input_shape(plan.final))
    expected = (1, plan.final.n_outputs, *plan.final.network_shape)
    # On the meta device shapes are computed and nothing else; other people's networks may hold
    # tensors of their own on the processor.
    with torch.device("cpu" if ":" in recipe.network.name else "meta"), torch.no_grad():
        network = build_network(recipe, plan).eval()
        try:
            found = tuple(network(torch.zeros(shape)).shape)
        except LeansegError:
            raise
        except Exception as error:  # whatever a network says of a shape that it does not take
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            msg = (
                f"recipe {recipe.name!r}: network {recipe.network.name!r} does not take slices of "
                f"{shape[2]} x {shape[3]} ({reason}); is it a 3-D network?"
            )
            raise RecipeError(msg) from error
    if found != expected:
        msg = (
            f"recipe {recipe.name!r}: network {recipe.network.name!r} makes {found} of a slice, "
            f"but {expected} is needed; choose another size or network"
        )
        raise RecipeError(msg)


def _require_slices(recipe: Recipe, stage: StageSettings) -> None:
    """Refuse what the loop does not train: it sees whole slices of one size.

    Raises:
        RecipeError: Naming the key.
    """
    if stage.patch.shape != ("whole", "whole", 1) or stage.frame.axes[2] != Axis():
        msg = (
            f"recipe {recipe.name!r}: 'plan.patch.shape' {list(stage.patch.shape)} is of a network "
            "that can be run but not trained yet; training sees whole slices, [whole, whole, 1]"
        )
        raise RecipeError(msg)
    if stage.frame.region != "scan":
        msg = f"recipe {recipe.name!r}: 'plan.frame.region' of a network in training is 'scan'"
        raise RecipeError(msg)
