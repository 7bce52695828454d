"""The folds that a recipe asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanseg.datasets import Case, Split, read_splits, split_cases
from leanseg.datasets.splits import patients_of, slices_of, volume_ml
from leanseg.errors import DatasetError, RecipeError
from leanseg.training.data import TrainingData
from leanseg.training.recipe import Recipe


def make_splits(recipe: Recipe, data: TrainingData) -> list[Split]:
    """The folds that a recipe's split section asks for.

    Raises:
        LeansegError: If there are too few cases or patients, or a split file is missing, names a
            case that is not there, or has a patient on both sides.
    """
    section, cases = recipe.split, data.cases
    names, patients = [case.name for case in cases], patients_of(cases)
    if section.kind == "file":
        return _from_file(recipe, names, patients)
    measured: dict[str, Any] = {}
    if section.kind == "contiguous":
        measured = {case.name: slices_of(case, recipe.plan.frame.orientation) for case in cases}
    if section.kind == "stratified":
        measured = {case.name: _volume_ml(case, data, section.by) for case in cases}
    return split_cases(
        names,
        section.kind,
        n_folds=section.n_folds,
        train_fraction=section.train_fraction,
        seed=section.seed,
        patients=patients,
        measured=measured,
    )


def _from_file(recipe: Recipe, names: list[str], patients: dict[str, str]) -> list[Split]:
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
