"""Writing phantom scans as a Decathlon dataset."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.datasets.case import Dataset
from leanseg.datasets.layouts import open_dataset
from leanseg.datasets.phantom.anatomy import LABELS
from leanseg.datasets.phantom.scan import PhantomOptions, make_phantom
from leanseg.errors import DatasetError, RecipeError

# Raised whenever the same seed gives other scans than before.
PHANTOM_VERSION = 2


def write_phantom_dataset(
    folder: str | Path,
    n_cases: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    *,
    n_workers: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a dataset of synthetic abdominal CT scans in the Decathlon layout.

    Case n depends on the seed and n alone: not on how many cases or workers there are. The
    folder is written under another name and then renamed, so that it is complete or absent.
    A folder that already holds this very dataset is left as it is.

    Args:
        folder: Where; absent, empty, or holding the same dataset.
        n_cases: Number of cases.
        seed: The same seed, number and options give the same bytes.
        options: What all scans have in common.
        n_workers: Processes to use; 0 and 1 use this one alone.
        progress: Called with the name of each case that is written.

    Returns:
        The folder.

    Raises:
        RecipeError: If a number is out of its range.
        DatasetError: If the folder holds something else, or cannot be made.
    """
    folder, options = Path(folder), options or PhantomOptions()
    for name, value, low in (("cases", n_cases, 1), ("seed", seed, 0), ("workers", n_workers, 0)):
        if value < low:
            msg = f"phantom option {name} is {value}; choose {low} or more"
            raise RecipeError(msg)
    listing = _listing(n_cases, seed, options)
    if _already_there(folder, listing):
        return folder
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    try:
        for part in ("imagesTr", "labelsTr"):
            (temporary / part).mkdir(parents=True)
        write = partial(_write_case, temporary, seed, options)
        for name in _write_cases(write, n_cases, n_workers):
            if progress is not None:
                progress(name)
        text = json.dumps(listing, indent=1) + "\n"
        (temporary / "dataset.json").write_text(text, encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()
        temporary.replace(folder)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        msg = f"{folder}: cannot be made ({error.strerror}); choose another folder"
        raise DatasetError(msg) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def phantom(
    folder: str | Path,
    n_cases: int = 20,
    *,
    seed: int = 0,
    size: int = 256,
    slices: int | None = None,
    tumour_mm: float | None = None,
    n_workers: int = 0,
) -> Dataset:
    """Synthetic abdominal CT scans with exact labels, as a dataset to try things with.

    Args:
        folder: Where it is written; absent, empty, or holding the same dataset.
        n_cases: Number of scans.
        seed: The same seed gives the same scans.
        size: Rows and columns of a slice, 64 to 512.
        slices: Slices of a scan, 20 to 120; None varies them.
        tumour_mm: Diameter of the pancreatic tumour, 5 to 40, or 0 for none; None varies it.
        n_workers: Processes that write scans; 0 writes them in this one.

    Raises:
        RecipeError: If a number is out of its range.
        DatasetError: If the folder holds something else, or cannot be made.

    Example:
        >>> data = leanseg.phantom("liver_and_more", 2, size=64, slices=20)
        >>> len(data), data[0].image.shape, data.labels["liver"]
        (2, (64, 64, 20), 1)
    """
    options = PhantomOptions(size=size, slices=slices, tumour_mm=tumour_mm)
    return open_dataset(write_phantom_dataset(folder, n_cases, seed, options, n_workers=n_workers))


def _case_name(index: int) -> str:
    return f"phantom_{index:04d}"


def _listing(n_cases: int, seed: int, options: PhantomOptions) -> dict[str, Any]:
    names = [_case_name(index) for index in range(n_cases)]
    return {
        "name": "LeansegPhantom",
        "description": "Synthetic abdominal CT with exact labels; no patient's data",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(value): name for name, value in LABELS.items()}},
        "numTraining": n_cases,
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in names
        ],
        "test": [],
        "phantom": {"version": PHANTOM_VERSION, "seed": seed, **asdict(options)},
    }


def _already_there(folder: Path, listing: dict[str, Any]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == listing and all(
        (folder / entry[part]).is_file()
        for entry in listing["training"]
        for part in ("image", "label")
    ):
        return True
    msg = f"{folder}: already holds something else; choose a new folder, or remove this one"
    raise DatasetError(msg)


def _write_cases(write: Callable[[int], str], n_cases: int, n_workers: int) -> Iterator[str]:
    if n_workers <= 1 or n_cases == 1:
        yield from map(write, range(n_cases))
        return
    # A fresh interpreter for each worker: a fork may copy locks that other threads hold.
    context = get_context("spawn")
    with ProcessPoolExecutor(min(n_workers, n_cases), mp_context=context) as pool:
        yield from pool.map(write, range(n_cases))


def _write_case(folder: Path, seed: int, options: PhantomOptions, index: int) -> str:
    from leanseg.volumes import write_volume

    name = _case_name(index)
    image, label = make_phantom(np.random.default_rng([seed, index]), options)
    write_volume(folder / "imagesTr" / f"{name}.nii.gz", image)
    write_volume(folder / "labelsTr" / f"{name}.nii.gz", label)
    return name
