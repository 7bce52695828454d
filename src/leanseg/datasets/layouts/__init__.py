"""Layouts on disk: one file each, and one line in the registry below.

A layout is a module (or any object) with two functions: `recognises(folder)`, a quick look that
reads no scan, and `read(folder)`, which returns the `Dataset` or raises a `DatasetError`. One
that can also be written (`leanseg.datasets.convert`) says where files go and how it lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts import (
    bids,
    casefolders,
    chaos,
    decathlon,
    ircadb,
    kits19,
    nih_pancreas,
    nnunet,
    plain,
    table,
    tcia43,
    visceral,
)
from leanseg.errors import DatasetError, LeansegError
from leanseg.volumes.archive import is_archive, packed, unpacked


class Layout(Protocol):
    """What the registry expects of a layout."""

    def recognises(self, folder: Path) -> bool:
        """Whether `folder` looks like this layout."""

    def read(self, folder: Path) -> Dataset:
        """The dataset in `folder`."""


class WritableLayout(Layout, Protocol):
    """What a layout has besides if datasets can be written in it."""

    # Whether it can say that a case annotates some of the labels only.
    TELLS_ANNOTATED: bool

    def places(self, case: Case, name: str, n_channels: int) -> tuple[tuple[str, ...], str | None]:
        """Paths of a case's images and label map, relative to the dataset.

        Several images take one channel each, a single one takes all.
        """

    def values(self, labels: Mapping[str, int]) -> dict[str, int]:
        """The value that each label gets."""

    def description(self, dataset: Dataset) -> tuple[str, dict[str, Any]]:
        """Name and content of the JSON file that describes the dataset."""


# Tried in this order: the more specific layout first.
LAYOUTS: dict[str, Layout] = {
    "chaos": chaos.ct_or_t2,
    "chaos-t1": chaos.t1,
    "3d-ircadb": ircadb,
    "tcia43": tcia43,
    "nih-pancreas": nih_pancreas,
    "nnunet": nnunet,
    "decathlon": decathlon,
    "table": table,
    "visceral": visceral,
    "kits19": kits19,
    "bids": bids,
    "casefolders": casefolders,
    "plain": plain,
}

WRITABLE: dict[str, WritableLayout] = {
    name: cast(WritableLayout, layout)
    for name, layout in LAYOUTS.items()
    if hasattr(layout, "places")
}


def open_dataset(path: str | Path, layout: str | None = None) -> Dataset:
    """The dataset in a folder; scans are not read, label maps only where names need them.

    Args:
        path: The dataset's folder, a zip file of it, the `dataset.json` in it, or a table
            (.csv, .tsv) that lists its files.
        layout: Registered name of the layout; None recognises it.

    Raises:
        DatasetError: If the folder is missing or empty, the layout is unknown or not
            recognised, or its listing does not match its files.
    """
    folder = Path(path)
    if folder.name == "dataset.json" and folder.is_file():
        folder = folder.parent
    if layout is not None and layout not in LAYOUTS:
        msg = f"unknown dataset layout {layout!r}; choose one of {', '.join(LAYOUTS)}"
        raise DatasetError(msg)
    if not folder.exists():
        msg = f"{folder}: this folder does not exist; check the path to the dataset"
        raise DatasetError(msg)
    if is_archive(folder):
        return _in_archive(folder, layout)
    if folder.suffix.lower() in table.SUFFIXES and folder.is_file() and layout in (None, "table"):
        return table.read(folder)
    if not folder.is_dir():
        msg = f"{folder}: expected a folder or a zip file with a dataset; give its folder"
        raise DatasetError(msg)
    if not any(not entry.name.startswith(".") for entry in folder.iterdir()):
        msg = f"{folder}: the folder is empty; put scans into images/ and label maps into labels/"
        raise DatasetError(msg)
    if layout is not None:
        return LAYOUTS[layout].read(folder)
    for known in LAYOUTS.values():
        if known.recognises(folder):
            return known.read(folder)
    msg = (
        f"{folder}: no dataset recognised here; expected a dataset.json (Decathlon, nnU-Net), "
        "a pair of folders such as images/ and labels/, scans, or a CSV file that lists them"
    )
    raise DatasetError(msg)


def _in_archive(archive: Path, layout: str | None) -> Dataset:
    """A dataset in a zip file, with all paths told through it, so that they stay valid."""
    folder = unpacked(archive)
    try:
        dataset = _in_unpacked(folder, layout)
    except LeansegError as error:
        # The place where it was unpacked means nothing to the user.
        raise type(error)(str(error).replace(str(folder), str(archive))) from error
    cases = tuple(case.with_paths(lambda path: packed(path, archive)) for case in dataset.cases)
    name = archive.stem if dataset.name == dataset.root.resolve().name else dataset.name
    return replace(dataset, name=name, root=archive, cases=cases)


def _in_unpacked(folder: Path, layout: str | None) -> Dataset:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    if len(entries) == 1 and entries[0].is_dir():
        # Zipped together with its own folder, as most programs do.
        with suppress(DatasetError):
            return open_dataset(folder, layout)
        return open_dataset(entries[0], layout)
    return open_dataset(folder, layout)
