"""Public datasets that leanseg reads as they lie: where they come from, and how they must lie.

They are listed in `catalogue.yaml`. Read the terms before using a dataset: the licence of a copy
found elsewhere may not be the owner's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from leanseg.errors import DatasetError


@dataclass(frozen=True)
class PublicDataset:
    """One public dataset.

    Attributes:
        name: How `leanseg datasets NAME` calls it.
        title: Its own name.
        home: Home page.
        licence: As the source states it.
        modality: "CT", "MR" or both.
        cases: How many, labelled and not.
        organs: What is annotated.
        layout: Registered name of the layout that reads it.
        tree: The folders and files as leanseg expects them, one per line.
        notes: What to know before using it.
    """

    name: str
    title: str
    home: str
    licence: str
    modality: str
    cases: str
    organs: list[str]
    layout: str
    tree: list[str]
    notes: list[str]


@cache
def public_datasets() -> tuple[PublicDataset, ...]:
    """All of them."""
    text = (resources.files(__package__) / "catalogue.yaml").read_text(encoding="utf-8")
    return tuple(PublicDataset(**{"notes": [], **entry}) for entry in yaml.safe_load(text))


def public_dataset(name: str) -> PublicDataset:
    """The dataset of that name, upper and lower case alike.

    Raises:
        DatasetError: If there is none.
    """
    for dataset in public_datasets():
        if dataset.name == name.lower():
            return dataset
    known = ", ".join(dataset.name for dataset in public_datasets())
    raise DatasetError(f"no public dataset is called {name!r}; choose one of {known}")
