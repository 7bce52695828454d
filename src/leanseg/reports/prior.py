"""The middle: what a mask that is the same for every scan would score.

A network that scores no better than the average position of the training labels has learned
where the organ usually lies and nothing about how it looks. Scans cropped around their target
make this baseline strong, so it belongs beside every score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes import resize_array

GRID = (64, 64, 32)
_LEVELS = np.linspace(0.02, 0.98, 49)


@dataclass(frozen=True)
class CentrePrior:
    """The average training label in coordinates relative to the scan.

    Attributes:
        mean: Share of the training cases that have the label there, (i, j, k) on a small grid
            that spans the whole scan, float32 in [0, 1].
        level: The mask is where `mean`, resized to the scan, is at least this.
        training_dice: Mean Dice that this level reaches on the training cases.
    """

    mean: NDArray[np.float32]
    level: float
    training_dice: float

    def dice(self, mask: NDArray[np.bool_]) -> float | None:
        """Dice of the constant mask against a case.

        Args:
            mask: The case's reference (i, j, k), in the orientation of the training masks.

        Returns:
            None where the reference and the constant mask are both empty.
        """
        along_k = resize_array(self.mean, (mask.shape[2],), axes=(2,))
        overlap = n_prior = 0
        # Slice by slice: a float map of the whole scan would need four bytes a voxel.
        for k in range(mask.shape[2]):
            prior = resize_array(along_k[:, :, k], mask.shape[:2]) >= self.level
            n_prior += int(np.count_nonzero(prior))
            overlap += int(np.count_nonzero(prior & mask[:, :, k]))
        total = n_prior + int(np.count_nonzero(mask))
        return 2 * overlap / total if total else None


def centre_prior(masks: Iterable[NDArray[np.bool_]]) -> CentrePrior | None:
    """Average training masks in relative coordinates and choose the level that suits them best.

    Args:
        masks: Training references (i, j, k), any shapes, one orientation.

    Returns:
        None if there is no mask, or none that is not empty.
    """
    return prior_from_fractions([covered_fraction(mask) for mask in masks])


def covered_fraction(
    mask: NDArray[np.bool_], grid: tuple[int, int, int] = GRID
) -> NDArray[np.float32]:
    """Share of each voxel of a small grid over the whole scan that the mask covers."""
    in_plane = resize_array(mask.transpose(2, 0, 1), grid[:2], axes=(1, 2))
    return resize_array(in_plane, grid[2:], axes=(0,)).transpose(1, 2, 0)


def prior_from_fractions(fractions: Sequence[NDArray[np.float32]]) -> CentrePrior | None:
    """The prior from what `covered_fraction` gave for each training case; see `centre_prior`."""
    if not any(fraction.any() for fraction in fractions):
        return None
    stack = np.stack(fractions)
    mean = stack.mean(axis=0, dtype=np.float32)
    sizes = stack.sum(axis=(1, 2, 3), dtype=np.float64)
    best_level, best_dice = 0.0, -1.0
    for level in _LEVELS * float(mean.max()):
        prior = mean >= level
        overlap = stack[:, prior].sum(axis=1, dtype=np.float64)
        dice = float(np.mean(2 * overlap / (sizes + np.count_nonzero(prior))))
        if dice > best_dice:
            best_level, best_dice = float(level), dice
    return CentrePrior(mean, best_level, best_dice)
