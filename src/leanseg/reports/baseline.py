"""The baseline: what a mask that is the same for every scan would score.

A network that scores no better than the average position of the training labels has learned
where the organ usually lies and nothing about how it looks. Scans cropped around their target
make this baseline strong, so it belongs beside every score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import LeansegError
from leanseg.frames.classes import where_any
from leanseg.reports.run_folder import RunFolder
from leanseg.volumes import reorient

# Cells that the scan is divided into, whatever its size.
GRID = (64, 64, 32)
_LEVELS = np.linspace(0.02, 0.98, 49)
# In cells; where all is ignored, 0 is divided by it.
_LEAST_COUNTED = 1e-6
# Enough for a stable average; more would only make the report slower.
_MAX_TRAINING_CASES = 40


@dataclass(frozen=True)
class Baseline:
    """What constant masks score on a run's test cases.

    Attributes:
        dice: (case, label) to Dice, for those that could be computed.
        problem: A sentence saying why none or not all could be computed, or None.
    """

    dice: dict[tuple[str, str], float]
    problem: str | None = None


def covered_fraction(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Share of each cell of a grid over the whole scan that a mask (i, j, k) covers, (64, 64, 32).

    A voxel that lies in several cells counts in each with the part that lies there.
    """
    along_i, along_j, along_k = (
        _shares(length, cells) for length, cells in zip(mask.shape, GRID, strict=True)
    )
    covered = np.zeros(GRID, dtype=np.float32)
    # Slice by slice: a float map of the whole scan would need four bytes a voxel.
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        in_plane = along_i @ mask[:, :, k].astype(np.float32) @ along_j.T
        covered += in_plane[:, :, None] * along_k[:, k]
    return covered


def _shares(length: int, cells: int) -> NDArray[np.float32]:
    """Share of each cell that each voxel fills along one axis, (cell, voxel)."""
    edges = np.arange(cells + 1)[:, None] * (length / cells)
    voxels = np.arange(length)
    shared = np.minimum(edges[1:], voxels + 1) - np.maximum(edges[:-1], voxels)
    return np.asarray(shared.clip(0) * (cells / length), dtype=np.float32)


def constant_mask(
    cases: Sequence[NDArray[np.float32]],
    counted: Sequence[NDArray[np.float32]] | None = None,
) -> NDArray[np.bool_] | None:
    """The cells that the training cases' labels cover most, as many as suit these cases best.

    Args:
        cases: What `covered_fraction` gave for each training case.
        counted: What it gave for the voxels of each case that are not ignored; None where none is.

    Returns:
        Cells (64, 64, 32); None if no case has the label.
    """
    if not any(covered.any() for covered in cases):
        return None
    if counted is None:
        mean = np.mean(cases, axis=0)
    else:
        mean = np.sum(cases, axis=0) / np.maximum(np.sum(counted, axis=0), _LEAST_COUNTED)
    known = [None] * len(cases) if counted is None else counted
    masks: list[NDArray[np.bool_]] = [mean >= level for level in _LEVELS * mean.max()]
    return max(masks, key=lambda cells: np.mean(list(map(dice, cases, repeat(cells), known))))


def dice(
    covered: NDArray[np.float32],
    cells: NDArray[np.bool_],
    counted: NDArray[np.float32] | None = None,
) -> float:
    """Dice of a mask of cells, which is not empty, with a case.

    All cells have one size, so the sum of fractions over the mask is the exact overlap. Where
    voxels are ignored, `counted` is the share of each cell that is not.
    """
    overlap = covered[cells].sum(dtype=np.float64)
    size = np.count_nonzero(cells) if counted is None else counted[cells].sum(dtype=np.float64)
    return float(2 * overlap / max(covered.sum(dtype=np.float64) + size, _LEAST_COUNTED))


def run_baseline(run: RunFolder) -> Baseline:
    """The Dice of a constant mask for every scored case and label of a run."""

    @cache  # a file is read once, though it serves several folds
    def covered(case: str) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32] | None]:
        """For each label that the case annotates; and for the voxels that it does not ignore."""
        _, reference = run.volumes(case)
        array = reorient(reference, "LPS").array
        known = run.data.annotated[case]
        counted = None if run.ignored is None else covered_fraction(array != run.ignored)
        values = run.plan.final.label_values
        found = {name: covered_fraction(where_any(array, values[name])) for name in known}
        return found, counted

    found: dict[tuple[str, str], float] = {}
    try:
        for fold in run.folds:
            for label in fold.scores.labels:
                names = run.splits[fold.index].train[:_MAX_TRAINING_CASES]
                training = [covered(name) for name in names if label in covered(name)[0]]
                counted = [each for _, each in training if each is not None]
                mask = constant_mask([maps[label] for maps, _ in training], counted or None)
                for score in fold.scores.of_label(label):
                    if mask is not None:
                        maps, known = covered(score.case)
                        found[score.case, label] = dice(maps[label], mask, known)
    except (LeansegError, OSError) as error:
        return Baseline(found, f"{error}.")
    return Baseline(found)


def baseline_rows(run: RunFolder, baseline: Baseline) -> Iterator[dict[str, Any]]:
    """For each label, network and baseline over the cases for which both have a Dice."""
    for label in run.labels:
        both = [
            (own, baseline.dice[score.case, label])
            for score in run.scores.of_label(label)
            if (own := score.metrics["dice"]) is not None and (score.case, label) in baseline.dice
        ]
        if both:
            yield {
                "label": label,
                "network": fmean(own for own, _ in both),
                "baseline": fmean(constant for _, constant in both),
                "n_better": sum(own > constant for own, constant in both),
                "n": len(both),
            }
