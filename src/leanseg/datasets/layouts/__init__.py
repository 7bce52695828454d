"""Layouts on disk: one file each, and one line in the registry below.

A layout is a module (or any object) with two functions: `recognises(folder)`, a quick look that
reads no scan, and `read(folder)`, which returns the `Dataset` or raises a `DatasetError`. What lies
where is told by patterns (`leanseg.datasets.layouts.patterns`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from leanseg.datasets.case import Dataset
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
from leanseg.datasets.layouts.listing import DATASET_JSON
from leanseg.datasets.layouts.patterns import entries
from leanseg.datasets.layouts.writing import Target
from leanseg.errors import DatasetError
from leanseg.volumes import VOLUME_SUFFIXES
from leanseg.volumes.archive import is_archive, packed, unpacked
from leanseg.volumes.dicom import folder_of_index


class Layout(Protocol):
    """What the registry expects of a layout."""

    def recognises(self, folder: Path) -> bool:
        """Whether `folder` looks like this layout."""

    def read(self, folder: Path) -> Dataset:
        """The dataset in `folder`."""


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

# Those that datasets can be written in (`leanseg.datasets.convert`).
TARGETS: dict[str, Target] = {
    "nnunet": nnunet.TARGET,
    "decathlon": decathlon.TARGET,
    "plain": plain.TARGET,
}


def open_dataset(path: str | Path, layout: str | None = "auto") -> Dataset:
    """The dataset in a folder; scans are not read, label maps only where names need them.

    Args:
        path: The dataset's folder, a zip file of it, the `dataset.json` in it, or a table
            (.csv, .tsv) that lists its files.
        layout: Registered name of the layout; "auto" or None recognises it.

    Raises:
        DatasetError: If the folder is missing or empty, the layout is unknown or not
            recognised, or its listing does not match its files.

    Example:
        >>> data = leanseg.open_dataset("phantoms")
        >>> data.layout, data.channels, data[0].name
        ('decathlon', ('CT',), 'phantom_0000')
    """
    folder = folder_of_index(Path(path))
    if folder.name == DATASET_JSON and folder.is_file():
        folder = folder.parent
    layout = None if layout == "auto" else layout
    if layout not in (None, *LAYOUTS):
        raise DatasetError(f"unknown dataset layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if not folder.exists():
        raise DatasetError(f"{folder}: this folder does not exist; check the path to the dataset")
    if is_archive(folder):
        return _in_archive(folder, layout)
    if folder.suffix.lower() in table.SUFFIXES and folder.is_file() and layout in (None, "table"):
        return table.read(folder)
    return _layout_of(folder, layout).read(folder)


def _layout_of(folder: Path, layout: str | None) -> Layout:
    """The layout of a folder, by name or recognised."""
    if not folder.is_dir():
        msg = (
            f"{folder}: expected a folder or a zip file with a dataset; give its folder (scans and "
        )
        raise DatasetError(f"{msg}label maps are {', '.join(VOLUME_SUFFIXES)} or DICOM)")
    if not entries(folder):
        msg = f"{folder}: the folder is empty; put scans into images/ and label maps into labels/"
        raise DatasetError(msg)
    if layout is not None:
        return LAYOUTS[layout]
    for known in LAYOUTS.values():
        if known.recognises(folder):
            return known
    raise DatasetError(
        f"{folder}: no dataset recognised here; expected a dataset.json (Decathlon, nnU-Net), "
        "a pair of folders such as images/ and labels/, scans, or a CSV file that lists them"
    )


def _in_archive(archive: Path, layout: str | None) -> Dataset:
    """A dataset in a zip file, with all paths told through it, so that they stay valid."""
    dataset = _in_unpacked(unpacked(archive), layout)
    cases = tuple(case.with_paths(lambda path: packed(path, archive)) for case in dataset.cases)
    name = archive.stem if dataset.name == dataset.root.resolve().name else dataset.name
    return replace(dataset, name=name, root=archive, cases=cases)


def _in_unpacked(folder: Path, layout: str | None) -> Dataset:
    try:
        return open_dataset(folder, layout)
    except DatasetError:
        # Zipped together with its own folder, as most programs do.
        inside = entries(folder)
        if len(inside) != 1 or not inside[0].is_dir():
            raise
    return open_dataset(inside[0], layout)
