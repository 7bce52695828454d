"""Overlap metrics from voxel counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError, LeansegError

# Voxels per histogram step: the 8-byte copies that bincount needs then stay in the cache.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Counts:
    """Voxels of a prediction against a reference.

    Every ratio is None where its denominator is zero: it is undefined there, not zero.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.true_positive + self.false_positive

    @property
    def referenced(self) -> int:
        """Voxels of the reference."""
        return self.true_positive + self.false_negative

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.true_positive, self.predicted + self.referenced)

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN)."""
        return _ratio(self.true_positive, self.predicted + self.false_negative)

    @property
    def sensitivity(self) -> float | None:
        """TP / (TP + FN)."""
        return _ratio(self.true_positive, self.referenced)

    @property
    def specificity(self) -> float | None:
        """TN / (TN + FP)."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return _ratio(self.true_positive, self.predicted)

    @property
    def relative_volume_difference_percent(self) -> float | None:
        """100 (predicted - referenced) / referenced, signed."""
        return _ratio(100 * (self.predicted - self.referenced), self.referenced)

    def volume_difference_ml(self, voxel_ml: float) -> float:
        """Predicted minus referenced volume in ml, of voxels of `voxel_ml` each."""
        return (self.predicted - self.referenced) * voxel_ml


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def count_voxels(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], n_voxels: int | None = None
) -> Counts:
    """Count agreement of two masks.

    Args:
        prediction: Boolean array of any shape.
        reference: Boolean array of the same shape.
        n_voxels: Voxels of the whole scan where the two arrays are a crop of it that holds all
            foreground; None where they are whole.
    """
    both = int(np.count_nonzero(prediction & reference))
    predicted = int(np.count_nonzero(prediction))
    referenced = int(np.count_nonzero(reference))
    total = prediction.size if n_voxels is None else n_voxels
    return Counts(
        true_positive=both,
        false_positive=predicted - both,
        false_negative=referenced - both,
        true_negative=total - predicted - referenced + both,
    )


def dice_per_label(
    prediction: NDArray[Any], reference: NDArray[Any], n_labels: int
) -> NDArray[np.float64]:
    """Dice of every foreground label of two label maps, in a single pass.

    Args:
        prediction: Integers from 0 to `n_labels`, any shape.
        reference: Integers of the same shape and range.
        n_labels: Number of foreground labels.

    Returns:
        Shape (n_labels,): entry n is the Dice of value n + 1, NaN where neither map has it.

    Raises:
        GeometryError: If the shapes differ.
        LeansegError: If a value lies outside 0 to `n_labels`.
    """
    if prediction.shape != reference.shape:
        msg = (
            f"the prediction has shape {prediction.shape} and the reference {reference.shape}; "
            "bring both to one grid first"
        )
        raise GeometryError(msg)
    n_values = n_labels + 1
    joint = np.zeros(n_values * n_values, dtype=np.int64)
    narrow: np.dtype[Any] = np.dtype(np.uint16 if joint.size <= 1 << 16 else np.int64)
    # Memory order, whichever it is, so that ravelling copies nothing.
    fortran = prediction.flags.f_contiguous and reference.flags.f_contiguous
    flat_prediction = prediction.ravel(order="F" if fortran else "C")
    flat_reference = reference.ravel(order="F" if fortran else "C")
    for start in range(0, flat_prediction.size, _CHUNK):
        predicted = flat_prediction[start : start + _CHUNK]
        referenced = flat_reference[start : start + _CHUNK]
        for values in (predicted, referenced):
            if values.min() < 0 or values.max() > n_labels:
                wrong = values.max() if values.max() > n_labels else values.min()
                msg = f"label value {wrong} lies outside 0 to {n_labels}; check the label map"
                raise LeansegError(msg)
        pairs = referenced.astype(narrow)
        pairs *= n_values
        pairs += predicted.astype(narrow)
        joint += np.bincount(pairs, minlength=joint.size)
    table = joint.reshape(n_values, n_values)
    sizes = (table.sum(axis=0) + table.sum(axis=1))[1:]
    dice = np.full(n_labels, np.nan)
    np.divide(2.0 * np.diagonal(table)[1:], sizes, out=dice, where=sizes > 0)
    return dice
