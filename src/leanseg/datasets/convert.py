"""Converting a dataset from any layout into one that leanseg writes.

Every case is loaded whole, so that what cannot be read, or does not fit together, is found here.
Files that are already what the new layout wants are copied byte for byte; others are written as
NIfTI, whose affine has single precision: integers as int16 where they fit, others as float32.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts import WRITABLE, WritableLayout
from leanseg.datasets.load import load_case
from leanseg.errors import DatasetError
from leanseg.volumes.archive import unpacked
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_EXACT_FLOAT = 2**24
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
    """

    folder: Path
    n_cases: int
    n_copied: int
    n_written: int
    renamed: Mapping[str, str]
    renumbered: Mapping[str, int]
    losses: tuple[str, ...]


def convert(
    dataset: Dataset,
    layout: str,
    folder: str | Path,
    *,
    allow_loss: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Conversion:
    """Write a dataset in another layout; the folder appears whole or not at all.

    Args:
        dataset: As `open_dataset` gives it.
        layout: Registered name of a layout that can be written.
        folder: Where; absent or empty.
        allow_loss: Write it even where the layout cannot tell all that the dataset does.
        progress: Called with the number of cases that are written.

    Raises:
        DatasetError: If the layout cannot be written, the folder holds something, or the layout
            cannot tell which labels a case annotates and `allow_loss` is off.
        LeansegError: If a case cannot be loaded or a file not written.
    """
    folder = Path(folder)
    if layout not in WRITABLE:
        msg = f"layout {layout!r} cannot be written; choose one of {', '.join(WRITABLE)}"
        raise DatasetError(msg)
    target = WRITABLE[layout]
    losses = lost(dataset, layout)
    if losses and not allow_loss:
        msg = f"{dataset.root}: {losses[0]}; convert to 'plain', or accept it with --allow-loss"
        raise DatasetError(msg)
    names = safe_names([case.name for case in dataset.cases])
    values = target.values(dataset.labels)
    renumbered = {name: new for name, new in values.items() if dataset.labels[name] != new}
    cases = tuple(replace(case, name=names[case.name]) for case in dataset.cases)
    renamed = replace(dataset, labels=values, cases=tuple(sorted(cases, key=lambda c: c.name)))
    file, content = target.description(renamed)
    counts = [0, 0]
    with _whole_folder(folder) as temporary:
        changed = {dataset.labels[name]: values[name] for name in values} if renumbered else None
        for done, case in enumerate(cases, start=1):
            _write_case(case, dataset, target, temporary, changed, counts)
            if progress is not None:
                progress(done)
        kept = {key: value for key, value in content.items() if value != {}}
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        # What UTF-8 does not have becomes an escape, as JSON writes it.
        (temporary / file).write_text(text, encoding="utf-8", errors="backslashreplace")
    return Conversion(
        folder,
        n_cases=len(cases),
        n_copied=counts[0],
        n_written=counts[1],
        renamed={old: new for old, new in names.items() if old != new},
        renumbered=renumbered,
        losses=losses,
    )


def lost(dataset: Dataset, layout: str) -> tuple[str, ...]:
    """What a layout cannot tell of a dataset, one sentence each."""
    losses = []
    partial = [
        case
        for case in dataset.cases
        if case.label_parts and not all(case.annotates(label) for label in dataset.labels)
    ]
    if partial and not WRITABLE[layout].TELLS_ANNOTATED:
        first = partial[0]
        missing = [label for label in dataset.labels if not first.annotates(label)]
        losses.append(
            f"{len(partial)} case(s) do not annotate every label ({first.name} has no "
            f"{', '.join(missing)}), and {layout} would call what is not annotated background"
        )
    return tuple(losses)


def safe_names(names: list[str]) -> dict[str, str]:
    """A name for files for each name: plain characters, no two alike, whatever the case.

    Returns:
        Old name to new name; names that are safe already stay.
    """
    kept = {name for name in names if _plain(name) == name}
    # A name that stays goes first, so that no other takes it.
    order = [*(n for n in names if n in kept), *(n for n in names if n not in kept)]
    taken: set[str] = set()
    result: dict[str, str] = {}
    for name in order:
        base = _plain(name)
        new, number = base, 1
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


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, which it becomes when the block ends well."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        msg = f"{folder}: already holds something; choose a new folder, or empty this one"
        raise DatasetError(msg)
    absolute = folder.absolute()
    temporary = absolute.parent / f".{absolute.name}.{os.getpid()}.partial"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if absolute.is_dir():
            absolute.rmdir()
        temporary.replace(absolute)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        msg = f"{folder}: cannot be made ({error.strerror}); choose another folder"
        raise DatasetError(msg) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_case(
    case: Case,
    dataset: Dataset,
    target: WritableLayout,
    folder: Path,
    changed: Mapping[int, int] | None,
    counts: list[int],
) -> None:
    """Write or copy the files of one case; `counts` gets how many were copied and written."""
    image, label = load_case(case, dataset)
    images, labelled = target.places(case, case.name, len(dataset.channels))
    for number, place in enumerate(images):
        path = _made(folder / place)
        shape = image.array.shape if len(images) == 1 else image.shape
        if len(images) == len(case.images) and _fits(case.images[number], shape, image):
            source = case.images[number]
            shutil.copyfile(unpacked(source.path), path)
            counts[0] += 1
        else:
            channel = image.array
            if len(images) > 1:
                channel = channel[..., number]
            _write_image(path, image.with_array(channel))
            counts[1] += 1
    if label is None or labelled is None:
        return
    path, part = _made(folder / labelled), case.label_parts[0]
    if len(case.label_parts) == 1 and changed is None and _fits_label(part, image):
        shutil.copyfile(unpacked(part.source.path), path)
        counts[0] += 1
    else:
        from leanseg.volumes import write_mask

        write_mask(path, _renumbered(case, label.array, dataset, changed), like=image)
        counts[1] += 1


def _made(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


def _fits(source: Source, shape: tuple[int, ...], image: Volume) -> bool:
    """Whether a source's file is a gzipped NIfTI file of this shape on the very grid of a scan."""
    from leanseg.volumes import open_volume

    name = source.path.name.lower()
    if source.reader != "volume" or source.options or not name.endswith(".nii.gz"):
        return False
    path = unpacked(source.path)
    with path.open("rb") as file:
        if file.read(2) != _GZIP_MAGIC:
            return False
    stored = open_volume(path)
    return stored.header.shape == shape and np.array_equal(stored.affine, image.affine)


def _fits_label(part: LabelPart, image: Volume) -> bool:
    from leanseg.volumes import open_volume

    if part.value is not None or part.values is not None:
        return False
    if not _fits(part.source, image.shape, image):
        return False
    return open_volume(part.source.path).dtype.kind in "iu"


def _write_image(path: Path, image: Volume) -> None:
    from leanseg.volumes import write_volume

    write_volume(path, image.with_array(_as_stored(image.array)))


def _as_stored(array: NDArray[Any]) -> NDArray[Any]:
    """The voxels as int16, else float32, where that changes no value."""
    if array.dtype.kind not in "iu" or array.dtype in (np.int16, np.uint8):
        return array
    low, high = int(array.min()), int(array.max())
    limits = np.iinfo(np.int16)
    if limits.min <= low and high <= limits.max:
        return array.astype(np.int16)
    if max(-low, high) <= _LARGEST_EXACT_FLOAT:
        return array.astype(np.float32)
    return array


def _renumbered(
    case: Case, array: NDArray[Any], dataset: Dataset, changed: Mapping[int, int] | None
) -> NDArray[Any]:
    if changed is None:
        return array
    present = {int(value) for value in np.unique(array)} - {0}
    unknown = sorted(present - set(changed))
    if unknown:
        msg = (
            f"{case.label}: has the value {unknown[0]}, which is none of the dataset's labels "
            f"({', '.join(f'{value} {name}' for name, value in dataset.labels.items())}); "
            "name it, or correct the label map"
        )
        raise DatasetError(msg)
    table = np.zeros(max(present, default=0) + 1, dtype=np.uint16)
    for value in present:
        table[value] = changed[value]
    renumbered: NDArray[Any] = table[array]
    return renumbered
