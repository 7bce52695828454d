"""The layout of the Medical Segmentation Decathlon: a dataset.json that lists everything.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 2022. Scans are
3-D, or 4-D with the channels named under "modality" last. Labels in the style of nnU-Net 2
(`{"background": 0, "liver": 1}`) and its "channel_names" are understood too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.listing import (
    METADATA,
    foreground_labels,
    kept_metadata,
    numbered_names,
    read_object,
    require_files,
    shortened,
    sorted_unique,
    with_metadata,
)
from leanseg.errors import DatasetError

LISTING = "dataset.json"
TELLS_ANNOTATED = False


def recognises(folder: Path) -> bool:
    """Whether there is a dataset.json."""
    return (folder / LISTING).is_file()


def read(folder: Path) -> Dataset:
    """The dataset that the folder's dataset.json describes; test scans are cases too.

    Raises:
        DatasetError: If the listing is missing, is not valid, or names missing files.
    """
    source = folder / LISTING
    if not source.is_file():
        msg = f"{folder}: no {LISTING} here; add it, or choose another layout"
        raise DatasetError(msg)
    listing = read_object(source, '{"labels": {"1": "liver"}, "training": [...]}')
    if "labels" not in listing:
        msg = f'{source}: "labels" is missing; add it, such as {{"0": "background", "1": "liver"}}'
        raise DatasetError(msg)
    labels = foreground_labels(source, listing["labels"])
    key = "channel_names" if "modality" not in listing else "modality"
    channels = numbered_names(source, key, listing.get(key, {"0": "CT"}))
    cases = _cases(folder, source, listing)
    files = [part.path for case in cases for part in case.sources]
    require_files(source, files)
    name = listing.get("name")
    return Dataset(
        name=name if isinstance(name, str) and name else folder.resolve().name,
        root=folder,
        layout="decathlon",
        cases=sorted_unique(source, with_metadata(source, listing, cases)),
        labels=labels,
        channels=channels,
    )


def _cases(folder: Path, source: Path, listing: Mapping[str, Any]) -> list[Case]:
    training, test = listing.get("training", []), listing.get("test", [])
    if not isinstance(training, list) or not isinstance(test, list):
        msg = f'{source}: "training" and "test" must be lists of cases'
        raise DatasetError(msg)
    cases = [_case(folder, source, entry, "training") for entry in training]
    cases += [_case(folder, source, entry, "test") for entry in test]
    cases = [case for case in cases if not case.images[0].path.name.startswith(".")]
    if not cases:
        msg = (
            f'{source}: lists no case under "training"; list the cases, or, in the manner of '
            'nnU-Net, add "file_ending" and name the scans imagesTr/case_0000.nii.gz'
        )
        raise DatasetError(msg)
    return cases


def _case(folder: Path, source: Path, entry: Any, part: str) -> Case:
    from leanseg.volumes import volume_stem

    image = entry.get("image") if isinstance(entry, Mapping) else entry
    label = entry.get("label") if isinstance(entry, Mapping) else None
    if not isinstance(image, str) or not isinstance(label, str | None):
        msg = (
            f'{source}: "{part}" has the entry {shortened(entry)}; '
            'expected {"image": ..., "label": ...}'
        )
        raise DatasetError(msg)
    path = folder / image
    return Case.of_files(
        volume_stem(path), (path,), None if label is None else folder / label, {"part": part}
    )


def places(case: Case, name: str, n_channels: int) -> tuple[tuple[str, ...], str | None]:
    """Where a case's files go in this layout: all channels in one file.

    Args:
        case: Goes among the test scans where it has no labels.
        name: The case's name, safe for files.
        n_channels: Of the dataset.

    Returns:
        Path of the image, and of the label map or None, relative to the dataset.
    """
    part = "Ts" if _is_test(case) else "Tr"
    label = f"labels{part}/{name}.nii.gz" if case.label_parts else None
    return (f"images{part}/{name}.nii.gz",), label


def _is_test(case: Case) -> bool:
    return not case.label_parts or case.metadata.get("part") == "test"


def values(labels: Mapping[str, int]) -> dict[str, int]:
    """The values that labels get in this layout: those that they have."""
    return dict(labels)


def description(dataset: Dataset) -> tuple[str, dict[str, Any]]:
    """The description of a dataset whose files lie in their places: file name and content."""
    training: list[Any] = []
    test: list[Any] = []
    for case in dataset.cases:
        (image,), label = places(case, case.name, 1)
        entry: Any = f"./{image}"
        if label is not None:
            entry = {"image": f"./{image}", "label": f"./{label}"}
        (test if _is_test(case) else training).append(entry)
    content = {
        "name": dataset.name,
        "tensorImageSize": "3D" if len(dataset.channels) == 1 else "4D",
        "modality": {str(n): name for n, name in enumerate(dataset.channels)},
        "labels": {
            "0": "background",
            **{str(value): name for name, value in dataset.labels.items()},
        },
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
        METADATA: kept_metadata(dataset.cases, "part"),
    }
    return LISTING, content
