"""The folds that a recipe asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leanseg.datasets import Case, Split, draw_monitor, read_splits, split_cases
from leanseg.datasets.splits import folds_of, patients_of, size_ranges, slices_of, volume_ml
from leanseg.errors import RecipeError
from leanseg.training.data import TrainingData, no_such_name
from leanseg.training.recipe import Recipe


def make_splits(
    recipe: Recipe, data: TrainingData, tell: Callable[[str], None] = lambda text: None
) -> list[Split]:
    """The folds that a recipe's split section asks for.

    Args:
        recipe: The recipe.
        data: What it takes of a dataset.
        tell: Called with what is to be said of each fold, where they go by size.

    Raises:
        LeansegError: If there are too few cases or patients, or a split file is missing or names
            a case that is not there. That it has a patient in two parts is for `leanseg check`.
    """
    section, cases = recipe.split, data.cases
    names, patients = [case.name for case in cases], patients_of(cases)
    if section.kind == "file":
        if section.file is None:
            msg = (
                f"recipe {recipe.name!r}: split.kind is 'file', but 'split.file' is missing; add it"
            )
            raise RecipeError(msg)
        listed = read_splits(section.file, names)
        return draw_monitor(listed, section.monitor_fraction, seed=section.seed, patients=patients)
    measured: dict[str, Any] = {}
    if section.kind == "contiguous":
        measured = {case.name: slices_of(case, recipe.plan.frame.orientation) for case in cases}
    if section.kind == "stratified":
        measured = {case.name: _volume_ml(case, data, section.by) for case in cases}
    if section.kind == "stated":
        measured = folds_of(cases)
    splits = split_cases(
        names,
        section.kind,
        n_folds=section.n_folds,
        train_fraction=section.train_fraction,
        monitor_fraction=section.monitor_fraction,
        seed=section.seed,
        patients=patients,
        measured=measured,
    )
    if section.kind == "contiguous":
        for text in size_ranges(splits, {name: sizes[0] for name, sizes in measured.items()}):
            tell(text)
    return splits


def _volume_ml(case: Case, data: TrainingData, by: str | None) -> float:
    """Volume of a class in a case, in ml; 0 where the case does not annotate it."""
    name = list(data.label_values)[-1] if by is None else by
    if name not in data.label_values:
        raise no_such_name("'split.by'", name, "the data", data.label_values)
    if name not in data.annotated[case.name]:
        return 0.0
    return volume_ml(case, data.label_values[name])
