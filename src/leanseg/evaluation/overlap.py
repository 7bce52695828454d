"""Overlap metrics from voxel counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = dict[str, float | None]


@dataclass(frozen=True)
class Counts:
    """Voxels of two masks: true and false positives, false and true negatives.

    Every ratio is None where its denominator is zero: it is undefined there, not zero.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(
        cls, prediction: NDArray[np.bool_], reference: NDArray[np.bool_], n_voxels: int
    ) -> Counts:
        """Count.

        Args:
            prediction: Boolean array of any shape that holds all foreground.
            reference: Boolean array of the same shape, likewise.
            n_voxels: Voxels that count, of which the two arrays may be a crop.
        """
        both = int(np.count_nonzero(prediction & reference))
        fp = int(np.count_nonzero(prediction)) - both
        fn = int(np.count_nonzero(reference)) - both
        return cls(both, fp, fn, n_voxels - both - fp - fn)

    def __add__(self, other: Counts) -> Counts:
        """Those of two cases together."""
        return Counts(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def published(self) -> Values:
        """Dice, sensitivity and specificity (paper 003, equations 18 to 20)."""
        return {
            "dice": _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn),
            "sensitivity": _ratio(self.tp, self.tp + self.fn),
            "specificity": _ratio(self.tn, self.tn + self.fp),
        }


def overlap_metrics(counts: Counts, voxel_ml: float) -> Values:
    """Ratios of voxels and volumes of two masks, by the names in `METRICS`.

    Args:
        counts: Voxels of the whole scan.
        voxel_ml: Volume of a voxel.
    """
    predicted, referenced = counts.tp + counts.fp, counts.tp + counts.fn
    return {
        **counts.published,
        "iou": _ratio(counts.tp, counts.tp + counts.fp + counts.fn),
        "precision": _ratio(counts.tp, predicted),
        "volume_difference_ml": (predicted - referenced) * voxel_ml,
        "relative_volume_difference_percent": _ratio(100 * (predicted - referenced), referenced),
        "reference_ml": referenced * voxel_ml,
        "prediction_ml": predicted * voxel_ml,
    }


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def dice_per_label(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    n_labels: int,
    *,
    ignored: int | None = None,
) -> NDArray[np.float64]:
    """Dice of every foreground label of two label maps, in a single pass.

    Args:
        prediction: Integers from 0 to `n_labels`, of at least two axes.
        reference: Integers of the same shape and range, or `ignored`.
        n_labels: Number of foreground labels.
        ignored: Value in the reference of voxels that do not count.

    Returns:
        Shape (n_labels,): entry n is the Dice of value n + 1, NaN where neither map has it.
    """
    both, sizes = np.zeros((2, n_labels + 1), dtype=np.int64)
    # Slice by slice: counting copies to 8 bytes a voxel.
    for predicted, referenced in zip(prediction, reference, strict=True):
        if ignored is not None:
            counted = referenced != ignored
            predicted, referenced = predicted[counted], referenced[counted]
        shared = referenced[predicted == referenced]
        both += np.bincount(shared, minlength=n_labels + 1)
        for values in (predicted, referenced):
            sizes += np.bincount(values.ravel(), minlength=n_labels + 1)
    dice = np.full(n_labels, np.nan)
    np.divide(2.0 * both[1:], sizes[1:], out=dice, where=sizes[1:] > 0)
    return dice
