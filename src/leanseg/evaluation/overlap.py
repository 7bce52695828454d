"""Overlap metrics from voxel counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = dict[str, float | None]


def overlap_metrics(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], *, n_voxels: int, voxel_ml: float
) -> Values:
    """Ratios of voxels and volumes of two masks, by the names in `METRICS`.

    Every ratio is None where its denominator is zero: it is undefined there, not zero.

    Args:
        prediction: Boolean array of any shape that holds all foreground.
        reference: Boolean array of the same shape, likewise.
        n_voxels: Voxels of the whole scan, of which the two arrays may be a crop.
        voxel_ml: Volume of a voxel.
    """
    both = int(np.count_nonzero(prediction & reference))
    predicted = int(np.count_nonzero(prediction))
    referenced = int(np.count_nonzero(reference))
    either = predicted + referenced - both
    return {
        "dice": _ratio(2 * both, predicted + referenced),
        "iou": _ratio(both, either),
        "sensitivity": _ratio(both, referenced),
        "specificity": _ratio(n_voxels - either, n_voxels - referenced),
        "precision": _ratio(both, predicted),
        "volume_difference_ml": (predicted - referenced) * voxel_ml,
        "relative_volume_difference_percent": _ratio(100 * (predicted - referenced), referenced),
        "reference_ml": referenced * voxel_ml,
        "prediction_ml": predicted * voxel_ml,
    }


def dice_within(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    slices: NDArray[np.bool_],
    axis: int,
) -> float | None:
    """Dice over some slices of two masks; None where both are empty there.

    Args:
        prediction: Boolean array of any shape.
        reference: Of the same shape.
        slices: Which slices count, (n,).
        axis: Along which they lie.
    """
    found, truth = (np.compress(slices, mask, axis) for mask in (prediction, reference))
    sizes = int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
    return _ratio(2 * int(np.count_nonzero(found & truth)), sizes)


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
