"""Probabilities from logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), in place."""
    with np.errstate(over="ignore"):
        np.exp(np.negative(logits, out=logits), out=logits)
    logits += 1
    return np.divide(1, logits, out=logits)


def softmax(logits: Floats, axis: int = 1) -> Floats:
    """Over an axis, in place."""
    logits -= logits.max(axis=axis, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=axis, keepdims=True)
    return logits
