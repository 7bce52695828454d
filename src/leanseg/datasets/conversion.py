"""Converting a dataset from any layout into one that leanseg writes.

Every case is loaded whole, so that what cannot be read, or does not fit together, is found here.
Files that are already what the new layout wants are copied byte for byte; others are written as
NIfTI, whose affine has single precision: integers as int16 where they fit, others as float32.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.case import Case, Dataset, load_case
from leanseg.datasets.labels import without_ignore
from leanseg.datasets.layouts import TARGETS
from leanseg.datasets.layouts.writing import Target
from leanseg.datasets.load import translated
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError
from leanseg.files import folder_written_whole, write_json
from leanseg.volumes import open_volume, write_mask, write_volume
from leanseg.volumes.archive import unpacked
from leanseg.volumes.volume import Volume

_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: The new dataset.
        n_cases: How many cases it has.
        n_copied: Files taken over byte for byte.
        n_written: Files written anew.
        renamed: Old name to new name of the cases whose name was not safe for files.
        renumbered: Label to its new value, where it differs from the old one.
        losses: What the new layout cannot tell, one sentence each.
        notes: What is to be said of the files' headers, likewise.
    """

    folder: Path
    n_cases: int
    n_copied: int
    n_written: int
    renamed: Mapping[str, str]
    renumbered: Mapping[str, int]
    losses: tuple[str, ...]
    notes: tuple[str, ...] = ()


def convert(
    dataset: Dataset,
    layout: str,
    folder: str | Path,
    *,
    allow_loss: bool = False,
    on_case: Callable[[str], None] = lambda name: None,
) -> Conversion:
    """Write a dataset in another layout; the folder appears whole or not at all.

    Args:
        dataset: From files, as `open_dataset` gives it, or from arrays.
        layout: Registered name of a layout that can be written.
        folder: Where; absent or empty.
        allow_loss: Write it even where the layout cannot tell all that the dataset does.
        on_case: Called with the name of each case that is written.

    Raises:
        DatasetError: If the layout cannot be written, or cannot tell which labels a case
            annotates and `allow_loss` is off.
        LeansegError: If the folder holds something, a case cannot be loaded or a file not
            written.

    Example:
        >>> done = leanseg.convert(leanseg.open_dataset("phantoms"), "nnunet", "Dataset501_Phantom")
        >>> done.n_cases, done.n_copied, leanseg.open_dataset(done.folder).layout
        (4, 8, 'nnunet')
    """
    if layout not in TARGETS:
        msg = f"layout {layout!r} cannot be written; choose one of {', '.join(TARGETS)}"
        raise DatasetError(msg)
    target, folder = TARGETS[layout], Path(folder)
    losses = lost(dataset, layout)
    if losses and not allow_loss:
        msg = f"{dataset.root}: {losses[0]}; convert to 'plain', or accept it with --allow-loss"
        raise DatasetError(msg)
    names = safe_names([case.name for case in dataset])
    values = target.values(dataset.labels)
    cases = tuple(replace(case, name=names[case.name]) for case in dataset)
    content = target.described(replace(dataset, labels=values, cases=cases))
    copied: list[bool] = []
    notes: list[str] = []
    with folder_written_whole(folder) as temporary:
        for old, case in zip(dataset, cases, strict=True):
            image, label = load_case(case, dataset)
            read = (image,) if label is None else (image, label)
            notes += [f"{volume.path}: {note}" for volume in read for note in volume.notes]
            copied += _write_case(case, image, label, dataset, target, temporary)
            on_case(old.name)
        described = {key: value for key, value in content.items() if value != {}}
        write_json(temporary / target.listing, described)
    return Conversion(
        folder,
        n_cases=len(cases),
        n_copied=sum(copied),
        n_written=len(copied) - sum(copied),
        renamed={old: new for old, new in names.items() if old != new},
        renumbered={name: new for name, new in values.items() if dataset.labels[name] != new},
        losses=losses,
        notes=tuple(notes),
    )


def lost(dataset: Dataset, layout: str) -> tuple[str, ...]:
    """What a layout cannot tell of a dataset, one sentence each."""
    # No case has to have ignored voxels.
    labels = without_ignore(dataset.labels)
    partial = [
        case
        for case in dataset
        if case.label_parts and not all(case.annotates(label) for label in labels)
    ]
    if TARGETS[layout].tells_annotated or not partial:
        return ()
    missing = [label for label in labels if not partial[0].annotates(label)]
    sentence = (
        f"{len(partial)} case(s) do not annotate every label ({partial[0].name} has no "
        f"{', '.join(missing)}), and {layout} would call what is not annotated background"
    )
    return (sentence,)


def safe_names(names: list[str]) -> dict[str, str]:
    """A name for files for each name: plain characters, no two alike, whatever the case.

    Returns:
        Old name to new name; names that are safe already stay.
    """
    taken: set[str] = set()
    result: dict[str, str] = {}
    # A name that stays goes first, so that no other takes it.
    for name in sorted(names, key=lambda name: _plain(name) != name):
        base = new = _plain(name)
        number = 1
        while new.lower() in taken:
            number += 1
            new = f"{base}_{number}"
        taken.add(new.lower())
        result[name] = new
    return {name: result[name] for name in names}


def _plain(name: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", ascii_only).strip("._-")[:_LONGEST_NAME]
    return plain or "case"


def _write_case(
    case: Case,
    image: Volume,
    label: Volume | None,
    dataset: Dataset,
    target: Target,
    folder: Path,
) -> list[bool]:
    """Write the files of one case; says of each whether it was copied as it is."""
    if any("geometry" in source.options for source in case.images):
        # What was chosen is what the new header says; the old one would leave it open again.
        image = replace(image, header=None)
    paths = [folder / place for place in target.images(case, len(dataset.channels))]
    as_files = len(paths) == len(case.images)
    copied = []
    for number, path in enumerate(paths):
        channel = image if len(paths) == 1 else image.with_array(image.array[..., number])
        path.parent.mkdir(exist_ok=True)
        fits = as_files and _fits(case.images[number], channel)
        if fits:
            shutil.copyfile(unpacked(case.images[number].path), path)
        else:
            write_volume(path, channel.with_array(_as_stored(channel.array)))
        copied.append(fits)
    if label is None:
        return copied
    path, part = folder / target.label(case), case.label_parts[0]
    path.parent.mkdir(exist_ok=True)
    values = {dataset.labels[n]: new for n, new in target.values(dataset.labels).items()}
    same = all(old == new for old, new in values.items())
    merged = len(case.label_parts) > 1 or part.value is not None or part.values is not None
    fits = same and not merged and _fits(part.source, label, integers=True)
    if fits:
        shutil.copyfile(unpacked(part.source.path), path)
    else:
        new = replace(part, value=None, values=values)
        write_mask(path, label.array if same else _renumbered(label, dataset, new), like=image)
    return [*copied, fits]


def _fits(source: VolumeSource, volume: Volume, *, integers: bool = False) -> bool:
    """Whether a source is a gzipped NIfTI file that holds just this volume, in this order."""
    if source.reader != "volume" or source.options or not source.path.name.endswith(".nii.gz"):
        return False
    path = unpacked(source.path)
    with path.open("rb") as file:
        if file.read(2) != _GZIP_MAGIC:
            return False
    stored = open_volume(path)
    shape = stored.header.shape
    same_grid = shape == volume.array.shape and np.array_equal(stored.affine, volume.affine)
    return same_grid and (stored.dtype.kind in "iu" or not integers)


def _as_stored(array: NDArray[Any]) -> NDArray[Any]:
    """The voxels as int16, else float32, where that changes no value."""
    if array.dtype.kind not in "iu" or array.dtype in (np.int16, np.uint8):
        return array
    low, high = int(array.min()), int(array.max())
    for dtype, limit in ((np.int16, 2**15), (np.float32, 2**24)):
        if -limit <= low and high < limit:
            return array.astype(dtype)
    return array


def _renumbered(label: Volume, dataset: Dataset, part: LabelPart) -> NDArray[Any]:
    renumbered = translated(part, label.array)
    unknown = label.array[renumbered < 0]
    if unknown.size:
        raise DatasetError(
            f"{label.path}: has the value {unknown.min()}, which is none of the dataset's labels "
            f"({', '.join(f'{value} {name}' for name, value in dataset.labels.items())}); "
            "name it, or correct the label map"
        )
    return renumbered.astype(np.uint16)
