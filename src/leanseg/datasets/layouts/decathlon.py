"""The layout of the Medical Segmentation Decathlon: a dataset.json that lists everything.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 2022. Scans are
3-D, or 4-D with the channels named under "modality" last. Labels in the style of nnU-Net 2
(`{"background": 0, "liver": 1}`) and its "channel_names" are understood too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, model_validator

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.listing import DATASET_JSON, DatasetJson, kept_metadata
from leanseg.datasets.layouts.writing import Target, is_test
from leanseg.errors import DatasetError
from leanseg.files import read_listing
from leanseg.volumes import volume_stem


class _Entry(BaseModel):
    """A listed case; one without a label may be the path of its scan alone."""

    image: str
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_path(cls, listed: Any) -> Any:
        return {"image": listed} if isinstance(listed, str) else listed


class _Listing(DatasetJson):
    """The dataset.json."""

    training: list[_Entry] = Field(default_factory=list)
    test: list[_Entry] = Field(default_factory=list)


def recognises(folder: Path) -> bool:
    """Whether there is a dataset.json."""
    return (folder / DATASET_JSON).is_file()


def read(folder: Path) -> Dataset:
    """The dataset that the folder's dataset.json describes; test scans are cases too.

    Raises:
        DatasetError: If the listing is missing, is not valid, or names missing files.
    """
    source = folder / DATASET_JSON
    listing = read_listing(source, _Listing)
    cases = [_case(folder, entry, "training") for entry in listing.training]
    cases += [_case(folder, entry, "test") for entry in listing.test]
    cases = [case for case in cases if not case.images[0].path.name.startswith(".")]
    if not cases:
        raise DatasetError(
            f'{source}: lists no case under "training"; list the cases, or, in the manner of '
            'nnU-Net, add "file_ending" and name the scans imagesTr/case_0000.nii.gz'
        )
    return listing.as_dataset(folder, "decathlon", cases)


def _case(folder: Path, entry: _Entry, part: str) -> Case:
    image = folder / entry.image
    label = None if entry.label is None else folder / entry.label
    return Case(image, label, volume_stem(image), metadata={"part": part})


def _described(dataset: Dataset) -> dict[str, Any]:
    listed: dict[str, list[Any]] = {"training": [], "test": []}
    for case in dataset.cases:
        paths = {"image": f"./{TARGET.images(case, 1)[0]}", "label": f"./{TARGET.label(case)}"}
        entry = paths if case.label_parts else paths["image"]
        listed["test" if is_test(case) else "training"].append(entry)
    return {
        "name": dataset.name,
        "tensorImageSize": "3D" if len(dataset.channels) == 1 else "4D",
        "modality": {str(n): name for n, name in enumerate(dataset.channels)},
        "labels": {"0": "background", **{str(v): name for name, v in dataset.labels.items()}},
        "numTraining": len(listed["training"]),
        "numTest": len(listed["test"]),
        **listed,
        "metadata": kept_metadata(dataset.cases, "part"),
    }


TARGET = Target(
    image="images{part}/{case}.nii.gz",
    label_map="labels{part}/{case}.nii.gz",
    listing=DATASET_JSON,
    described=_described,
)
