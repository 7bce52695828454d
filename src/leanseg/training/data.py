"""A dataset as a recipe uses it: which channels, which classes, which cases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanseg.datasets import Case, Dataset
from leanseg.errors import DatasetError, RecipeError
from leanseg.preprocessing import Plan, PlanSettings, case_sha256
from leanseg.training.recipe import Recipe


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
        fingerprint: SHA-256 over the names and contents of all files.
    """

    name: str
    root: Path
    layout: str
    cases: tuple[Case, ...]
    label_values: dict[str, list[int]]
    channels: tuple[str, ...]
    channel_indices: tuple[int, ...] | None
    fingerprint: str

    def case(self, name: str) -> Case:
        """The case called `name`."""
        return next(case for case in self.cases if case.name == name)

    def plan(self, recipe: Recipe) -> Plan:
        """The plan: the recipe's preprocessing with this data's classes and channels."""
        settings = {name: getattr(recipe.plan, name) for name in PlanSettings.model_fields}
        return Plan(labels=tuple(self.label_values), channels=self.channels, **settings)

    def to_json(self) -> dict[str, Any]:
        """The content of a run's `data.json`."""
        indices = None if self.channel_indices is None else list(self.channel_indices)
        return {
            "name": self.name,
            "root": str(self.root),
            "layout": self.layout,
            "labels": {name: number for number, name in enumerate(self.label_values, start=1)},
            "label_values": self.label_values,
            "channels": list(self.channels),
            "channel_indices": indices,
            "fingerprint": self.fingerprint,
            "cases": [{**case.to_json(), "channel_indices": indices} for case in self.cases],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainingData:
        """The data of a run from its `data.json`."""
        indices = content["channel_indices"]
        return cls(
            name=content["name"],
            root=Path(content["root"]),
            layout=content["layout"],
            cases=tuple(Case.from_json(entry) for entry in content["cases"]),
            label_values=content["label_values"],
            channels=tuple(content["channels"]),
            channel_indices=None if indices is None else tuple(indices),
            fingerprint=content["fingerprint"],
        )


def select_data(dataset: Dataset, recipe: Recipe) -> TrainingData:
    """What a recipe takes from a dataset.

    Raises:
        DatasetError: If no case has a label.
        RecipeError: If the recipe names a channel that the dataset does not have.
    """
    cases = tuple(case.with_paths(Path.resolve) for case in dataset.cases if case.label_parts)
    if len(cases) < 2:
        msg = (
            f"{dataset.root}: {len(cases)} case(s) have a label file, but training needs at "
            "least two (one to train, one to validate); check the layout"
        )
        raise DatasetError(msg)
    if recipe.data.labels is not None:
        values = {name: list(numbers) for name, numbers in recipe.data.labels.items()}
    else:
        values = {name: [value] for name, value in dataset.labels.items()}
    if not values:
        msg = f"{dataset.root}: names no foreground label; name them with 'data.labels'"
        raise DatasetError(msg)
    channels, indices = _select_channels(dataset, recipe)
    return TrainingData(
        name=dataset.name,
        root=dataset.root.resolve(),
        layout=dataset.layout,
        cases=cases,
        label_values=values,
        channels=channels,
        channel_indices=indices,
        fingerprint=fingerprint(cases),
    )


def fingerprint(cases: Sequence[Case]) -> str:
    """SHA-256 over the names, contents and reading of all files of some cases, in order of name."""
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.name):
        digest.update("\0".join([case.name, *case_sha256(case)]).encode() + b"\n")
    return digest.hexdigest()


def _select_channels(
    dataset: Dataset, recipe: Recipe
) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    wanted = recipe.data.channels
    if wanted is None or tuple(wanted) == dataset.channels:
        return dataset.channels, None
    for name in wanted:
        if name not in dataset.channels:
            msg = (
                f"recipe {recipe.name!r}: 'data.channels' names {name!r}, but {dataset.root} "
                f"has {', '.join(dataset.channels)}; name one of these"
            )
            raise RecipeError(msg)
    return tuple(wanted), tuple(dataset.channels.index(name) for name in wanted)
