"""The baseline: what a mask that is the same for every scan would score.

A network that scores no better than the average position of the training labels has learned
where the organ usually lies and nothing about how it looks. Scans cropped around their target
make this baseline strong, so it belongs beside every score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import LeansegError
from leanseg.reports.run_folder import RunFolder
from leanseg.volumes import reorient

# Cells that the scan is divided into, whatever its size.
GRID = (64, 64, 32)
_LEVELS = np.linspace(0.02, 0.98, 49)
# Enough for a stable average; more would only make the report slower.
_MAX_TRAINING_CASES = 40


@dataclass(frozen=True)
class ConstantMask:
    """A mask in coordinates relative to the scan, chosen on training cases.

    Attributes:
        cells: Whether each cell of a grid over the whole scan belongs to it, (i, j, k) bool.
        training_dice: Mean Dice that it reaches on the training cases.
    """

    cells: NDArray[np.bool_]
    training_dice: float

    def dice(self, covered: NDArray[np.float32]) -> float:
        """Dice against a case, given what `covered_fraction` says of its reference.

        All cells have one size, so the sum of fractions over the mask is the exact overlap.
        """
        return float(_dice(covered[None], self.cells)[0])


@dataclass(frozen=True)
class Baseline:
    """What constant masks score on a run's validation cases.

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


def constant_mask(covered: Sequence[NDArray[np.float32]]) -> ConstantMask | None:
    """The cells that the training cases' labels cover most, as many as suit these cases best.

    Args:
        covered: What `covered_fraction` gave for each training case.

    Returns:
        None if there is no case, or none with the label.
    """
    if not any(fraction.any() for fraction in covered):
        return None
    cases = np.stack(covered)
    mean = cases.mean(axis=0)
    masks = (mean >= level for level in _LEVELS * mean.max())
    scored = (ConstantMask(cells, float(_dice(cases, cells).mean())) for cells in masks)
    return max(scored, key=lambda mask: mask.training_dice)


def _dice(cases: NDArray[np.float32], cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice of one mask, which is not empty, with each case (case, i, j, k)."""
    overlap = cases[:, cells].sum(axis=1, dtype=np.float64)
    both = cases.sum(axis=(1, 2, 3), dtype=np.float64) + np.count_nonzero(cells)
    return np.asarray(2 * overlap / both)


def run_baseline(run: RunFolder) -> Baseline:
    """The Dice of a constant mask for every scored case and label of a run."""
    known = _Covered(run)
    dice: dict[tuple[str, str], float] = {}
    try:
        for fold in run.folds:
            if not fold.cases:
                continue
            if fold.index >= len(run.splits):
                return Baseline(dice, "The training cases are not known (no splits.json).")
            training = run.splits[fold.index].train[:_MAX_TRAINING_CASES]
            for label in run.labels:
                mask = constant_mask(list(known.of_cases(training, label)))
                for score in fold.cases:
                    if mask is not None and score.label == label:
                        for covered in known.of_cases([score.case], label):
                            dice[score.case, label] = mask.dice(covered)
    except (LeansegError, OSError) as error:
        return Baseline(dice, f"{error}.")
    return Baseline(dice)


class _Covered:
    """Small maps of a run's references; each file is read once, though it serves several folds."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._maps: dict[str, dict[str, NDArray[np.float32]]] = {}

    def of_cases(self, cases: Sequence[str], label: str) -> Iterator[NDArray[np.float32]]:
        """The maps of those cases that annotate the label."""
        for case in cases:
            if case not in self._maps:
                self._maps[case] = self._read(case)
            if label in self._maps[case]:
                yield self._maps[case][label]

    def _read(self, case: str) -> dict[str, NDArray[np.float32]]:
        reference = reorient(self._run.reference(case), "LPS").array
        return {
            label: covered_fraction(reference == value)
            for label, value in self._run.data["labels"].items()
            if label in self._run.annotated(case)
        }
