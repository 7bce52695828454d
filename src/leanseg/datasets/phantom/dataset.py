"""Writing phantom scans as a Decathlon dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts import TARGETS, open_dataset
from leanseg.datasets.phantom.anatomy import LABELS
from leanseg.datasets.phantom.scan import RANGES, PhantomOptions, make_phantom
from leanseg.errors import RecipeError
from leanseg.files import folder_written_whole, write_json
from leanseg.volumes import Volume, write_volume

# Raised whenever the same seed gives other scans than before.
PHANTOM_VERSION = 3
# However many of its multiples are taken, their fractional parts lie evenly between 0 and 1.
_GOLDEN_RATIO = (5**0.5 - 1) / 2


def phantom(
    folder: str | Path,
    n_cases: int = 20,
    *,
    seed: int = 0,
    size: int = 256,
    slices: int | None = None,
    tumour_mm: float | tuple[float, float] | None = None,
    on_case: Callable[[str], None] = lambda name: None,
) -> Dataset:
    """Synthetic abdominal CT scans with exact labels, as a dataset to try things with.

    They are written in the Decathlon layout. Case n depends on the options, the seed and n alone,
    not on how many cases there are. The folder appears whole or not at all; one that already holds
    this very dataset is left as it is.

    Args:
        folder: Where it is written; absent, empty, or holding the same dataset.
        n_cases: Number of scans.
        seed: The same seed gives the same bytes.
        size: Rows and columns of a slice, 64 to 512.
        slices: Slices of a scan, 20 to 120; None varies them.
        tumour_mm: Diameter of the pancreatic tumour, 5 to 40, or 0 for none; None varies it. A
            range gives every case a tumour, of diameters spread evenly over it; `tumours.json`
            then says for each case which was asked for, and that of a ball with the volume of
            its label.
        on_case: Called with the name of each case that is written.

    Raises:
        RecipeError: If a number is out of its range.
        LeansegError: If the folder holds something else, or cannot be made.

    Example:
        >>> data = leanseg.phantom("liver_and_more", 2, size=64, slices=20)
        >>> len(data), data[0].image.shape, data.labels["liver"]
        (2, (64, 64, 20), 1)
    """
    folder = Path(folder)
    ends = tumour_mm if isinstance(tumour_mm, tuple) else None
    fixed = None if isinstance(tumour_mm, tuple) else tumour_mm
    options = PhantomOptions(size=size, slices=slices, tumour_mm=fixed)
    for name, value, low in (("cases", n_cases, 1), ("seed", seed, 0)):
        if value < low:
            raise RecipeError(f"phantom option {name} is {value}; choose {low} or more")
    names = [f"phantom_{index:04d}" for index in range(n_cases)]
    listing = _listing(names, seed, options)
    each = [options] * n_cases
    if ends:
        each = [replace(options, tumour_mm=mm) for mm in _spread(ends, n_cases, seed)]
        listing["phantom"]["tumour_mm"] = list(ends)
    if _holds(folder, listing):
        return open_dataset(folder)
    with folder_written_whole(folder) as temporary:
        for part in ("imagesTr", "labelsTr"):
            (temporary / part).mkdir()
        tumours: dict[str, Any] = {}
        for index, (name, options) in enumerate(zip(names, each, strict=True)):
            image, label = make_phantom(np.random.default_rng([seed, index]), options)
            tumours[name] = {"asked_mm": options.tumour_mm, "measured_mm": _diameter_mm(label)}
            write_volume(temporary / "imagesTr" / f"{name}.nii.gz", image)
            write_volume(temporary / "labelsTr" / f"{name}.nii.gz", label)
            on_case(name)
        if ends:
            write_json(temporary / "tumours.json", tumours)
        write_json(temporary / "dataset.json", listing)
    return open_dataset(folder)


def _spread(ends: tuple[float, float], n_cases: int, seed: int) -> list[float]:
    """Diameters of the cases' tumours in mm, rounded to hundredths.

    Raises:
        RecipeError: If the ends are not in order, or out of their range.
    """
    (low, high), (least, greatest) = ends, RANGES["tumour_mm"]
    if not least <= low < high <= greatest:
        raise RecipeError(
            f"phantom option tumour_mm is the range {low:g}-{high:g}; choose two values from "
            f"{least:g} to {greatest:g}, the smaller one first"
        )
    # Not the numbers that a case is drawn with.
    start = np.random.default_rng([seed, 0, 1]).uniform()
    shares = (start + _GOLDEN_RATIO * np.arange(n_cases)) % 1
    return [round(float(mm), 2) for mm in low + (high - low) * shares]


def _diameter_mm(label: Volume) -> float:
    """Of a ball with the volume of the label map's tumour."""
    n_voxels = int(np.count_nonzero(label.array == LABELS["pancreatic_tumour"]))
    volume = n_voxels * abs(float(np.linalg.det(label.affine[:3, :3])))
    return round((6 * volume / np.pi) ** (1 / 3), 2)


def _listing(names: list[str], seed: int, options: PhantomOptions) -> dict[str, Any]:
    cases = [Case("image.nii.gz", "label.nii.gz", name) for name in names]
    dataset = Dataset(cases, LABELS, ["CT"], name="LeansegPhantom")
    made = {"version": PHANTOM_VERSION, "seed": seed, **asdict(options)}
    return {**TARGETS["decathlon"].described(dataset), "phantom": made}


def _holds(folder: Path, listing: dict[str, Any]) -> bool:
    """Whether a folder holds this very dataset with all of its scans."""
    try:
        found = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    files = [folder / place for entry in listing["training"] for place in entry.values()]
    return found == listing and all(file.is_file() for file in files)
