"""The folds that a recipe asks for."""

from __future__ import annotations

from pathlib import Path

from leanseg.datasets import Case, Split, read_splits
from leanseg.datasets.splits import split_cases, volume_ml
from leanseg.errors import DatasetError, RecipeError
from leanseg.training.data import TrainingData
from leanseg.training.recipe import Recipe


def make_splits(recipe: Recipe, data: TrainingData) -> list[Split]:
    """The folds that a recipe's split section asks for.

    Raises:
        LeansegError: If there are too few cases or patients, or a split file is missing, names a
            case that is not there, or has a patient on both sides.
    """
    section = recipe.split
    if section.kind == "file":
        return _from_file(recipe, data)
    return split_cases(
        data.cases,
        section.kind,
        n_folds=section.n_folds,
        train_fraction=section.train_fraction,
        seed=section.seed,
        amount=lambda case: _volume_ml(case, data, section.by),
        orientation=recipe.plan.frame.orientation,
    )


def _from_file(recipe: Recipe, data: TrainingData) -> list[Split]:
    names = [case.name for case in data.cases]
    patients = {c.name: c.metadata["patient"] for c in data.cases if "patient" in c.metadata}
    file = recipe.split.file
    if file is None:
        msg = f"recipe {recipe.name!r}: split.kind is 'file', but 'split.file' is missing; add it"
        raise RecipeError(msg)
    splits = read_splits(Path(file))
    for number, split in enumerate(splits):
        for name in (*split.train, *split.validation):
            if name not in names:
                msg = f"{file}: names case {name!r}, which the dataset does not have"
                raise DatasetError(msg)
        training = {patients[name]: name for name in split.train if name in patients}
        for name in split.validation:
            if patients.get(name) in training:
                msg = (
                    f"{file}: split {number} trains on {training[patients[name]]!r} and validates "
                    f"on {name!r} of the same patient; keep both on one side"
                )
                raise DatasetError(msg)
    return splits


def _volume_ml(case: Case, data: TrainingData, by: str | None) -> float:
    """Volume of a class in a case, in ml; 0 where the case does not annotate it."""
    name = list(data.label_values)[-1] if by is None else by
    if name not in data.label_values:
        msg = (
            f"'split.by' names {name!r}, but the classes are {', '.join(data.label_values)}; "
            "name one of these"
        )
        raise RecipeError(msg)
    if name not in data.annotated[case.name]:
        return 0.0
    return volume_ml(case, data.label_values[name])
