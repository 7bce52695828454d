"""The raw data folder of nnU-Net 2, and the Task folders of nnU-Net 1.

`DatasetXXX_Name/{imagesTr,labelsTr,imagesTs}` with one file per channel, `CASE_0000.nii.gz`,
and a dataset.json (Isensee et al., nnU-Net's documentation, "dataset format"). Labels of the test
scans in labelsTs are taken too; a list of cases under "dataset" goes before the folders. Files
may be of any kind that "file_ending" names and leanseg reads; splits_final.json is left alone.

Regions, `"whole tumour": [1, 2, 3]`, overlap, while a label map holds one number per voxel. So
the numbers become the labels: one that a name stands for alone has that name, the others are
called label_1, label_2, ...; a recipe's `data.labels` merges them into the region again. The label
"ignore", the highest number, marks voxels of which nothing is known (its documentation, "ignore
label").
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.labels import IGNORE, is_ignore
from leanseg.datasets.layouts.listing import (
    DATASET_JSON,
    DatasetJson,
    foreground_labels,
    kept_metadata,
)
from leanseg.datasets.layouts.patterns import find
from leanseg.datasets.layouts.writing import Target, is_test
from leanseg.errors import DatasetError
from leanseg.files import read_json, read_listing, shortened
from leanseg.volumes import VOLUME_SUFFIXES

_PARTS = {"training": "Tr", "test": "Ts"}


class _Files(BaseModel):
    """A case under "dataset"; its paths may hold $VARIABLES, as nnU-Net allows."""

    images: list[str] = Field(min_length=1)
    label: str | None = None


def _numbers_named(listed: Any) -> dict[str, int]:
    """The numbers in the label maps by name; one that only regions have is called label_<n>."""
    if not isinstance(listed, Mapping):
        return foreground_labels(listed)
    if isinstance(listed.get(IGNORE), list):
        raise ValueError(f'label "{IGNORE}" is {shortened(listed[IGNORE])}; give it one number')
    if not any(isinstance(value, list) for value in listed.values()):
        return foreground_labels(listed)
    regions = {name: v if isinstance(v, list) else [v] for name, v in listed.items()}
    for name, values in regions.items():
        if any(isinstance(number, bool) or not isinstance(number, int) for number in values):
            raise ValueError(f"region {shortened(name)} is {shortened(values)}, no whole numbers")
    alone = {name: values[0] for name, values in regions.items() if len(values) == 1}
    others = {number for values in regions.values() for number in values} - set(alone.values())
    return foreground_labels({**alone, **{f"label_{n}": n for n in sorted(others)}})


def _known_ending(ending: str) -> str:
    if ending not in VOLUME_SUFFIXES:
        raise ValueError(f"leanseg reads {', '.join(VOLUME_SUFFIXES)}")
    return ending


class _Listing(DatasetJson):
    """The dataset.json."""

    labels: Annotated[dict[str, int], BeforeValidator(_numbers_named)]
    file_ending: Annotated[str, AfterValidator(_known_ending)] = ".nii.gz"
    dataset: dict[str, _Files] | None = None


def recognises(folder: Path) -> bool:
    """Whether there is a dataset.json as nnU-Net writes it, or a Task folder of nnU-Net 1."""
    try:
        listing = read_json(folder / DATASET_JSON)
    except DatasetError:
        return False
    if not isinstance(listing, Mapping):
        return False
    if isinstance(listing.get("dataset"), Mapping):
        return True
    training, numbered = listing.get("training"), find(folder, "imagesTr/*_0000.*")
    if not training:
        return "file_ending" in listing or "channel_names" in listing or bool(numbered)
    if "file_ending" in listing and numbered:
        return True
    return isinstance(training, list) and _is_first_version(folder, training[0])


def _is_first_version(folder: Path, entry: Any) -> bool:
    """Whether a listed scan is there only with a channel number, as nnU-Net 1 names files."""
    image = entry.get("image") if isinstance(entry, Mapping) else None
    if not isinstance(image, str) or not image.endswith(".nii.gz") or len(image) > 1000:
        return False
    numbered = image.removesuffix(".nii.gz") + "_0000.nii.gz"
    return not (folder / image).is_file() and (folder / numbered).is_file()


def read(folder: Path) -> Dataset:
    """The dataset in a raw data folder; the scans in imagesTs are cases too.

    Raises:
        DatasetError: If the listing is missing or not valid, a case lacks a channel or, among the
            training cases, its label map, or there are no scans.
    """
    source = folder / DATASET_JSON
    listing = read_listing(source, _Listing)
    channels = listing.channels
    if listing.dataset:
        cases = [_listed(folder, name, files) for name, files in listing.dataset.items()]
    else:
        cases = list(_found(folder, listing.file_ending))
    if not cases:
        raise DatasetError(
            f"{folder / 'imagesTr'}: no scans here that are named like "
            f'case_0000{listing.file_ending}; add them, or correct "file_ending" in {DATASET_JSON}'
        )
    for case in cases:
        if len(case.images) != len(channels):
            raise DatasetError(
                f"{source}: case {shortened(case.name)} has {len(case.images)} file(s), but the "
                f"channels are {', '.join(channels)}; every case needs one file for each"
            )
    return listing.as_dataset(folder, "nnunet", cases)


def _listed(folder: Path, name: str, files: _Files) -> Case:
    images = [folder / os.path.expandvars(path) for path in files.images]
    label = None if files.label is None else folder / os.path.expandvars(files.label)
    return Case(images, label, name, metadata={"part": "training"})


def _found(folder: Path, ending: str) -> Iterator[Case]:
    for part, short in _PARTS.items():
        files: dict[str, list[Path]] = {}
        for found in find(folder, f"images{short}/<case>_<channel:\\d{{4}}>{ending}"):
            channels = files.setdefault(found.fields["case"], [])
            if int(found.fields["channel"]) != len(channels):
                raise DatasetError(
                    f"{found.path}: case {found.fields['case']!r} has this channel, but not that "
                    f"of number {len(channels):04d}; add the file"
                )
            channels.append(found.path)
        for name, images in files.items():
            label = folder / f"labels{short}" / f"{name}{ending}"
            unlabelled = part == "test" and not label.is_file()
            yield Case(images, None if unlabelled else label, name, metadata={"part": part})


def _described(dataset: Dataset) -> dict[str, Any]:
    if "background" in dataset.labels:
        msg = f"{dataset.root}: nnU-Net takes the label 'background' for something else; rename it"
        raise DatasetError(msg)
    ignored = [name for name in dataset.labels if is_ignore(name)]
    if len(ignored) > 1:
        listed = ", ".join(map(repr, ignored))
        raise DatasetError(f"{dataset.root}: nnU-Net knows one label to ignore, not {listed}")
    labels = {IGNORE if name in ignored else name: v for name, v in dataset.labels.items()}
    return {
        "name": dataset.name,
        "channel_names": {str(n): name for n, name in enumerate(dataset.channels)},
        "labels": {"background": 0, **labels},
        "numTraining": sum(not is_test(case) for case in dataset.cases),
        "file_ending": ".nii.gz",
        "metadata": kept_metadata(dataset.cases, "part"),
    }


TARGET = Target(
    image="images{part}/{case}_{channel:04d}.nii.gz",
    label_map="labels{part}/{case}.nii.gz",
    listing=DATASET_JSON,
    described=_described,
    # nnU-Net wants 1, 2, 3, ... without a gap.
    renumbers=True,
)
