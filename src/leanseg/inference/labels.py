"""From probabilities to labels in the network's own resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def network_labels(probabilities: NDArray[np.float32]) -> NDArray[Any]:
    """Classes (batch, *spatial) of probabilities (batch, output, *spatial).

    One output: 1 where it is above 0.5. Several: the first of the largest.
    """
    if probabilities.shape[1] == 1:
        return (probabilities[:, 0] > np.float32(0.5)).astype(np.uint8)
    dtype = np.uint8 if probabilities.shape[1] <= 256 else np.uint16
    return probabilities.argmax(axis=1).astype(dtype)
