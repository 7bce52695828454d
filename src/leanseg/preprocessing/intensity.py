"""Grey values: windowing and per-volume scaling, fitted once per channel and then applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.preprocessing.plan import HounsfieldWindow, Plan, QuantileWindow

# A slab of this many voxels is converted to float at a time, so that statistics of a large scan
# never need a float copy of it.
_SLAB_VOXELS = 4_000_000


@dataclass(frozen=True)
class IntensityTransform:
    """x -> (clip(x, low, high) - offset) * scale, for one channel of one volume."""

    low: float
    high: float
    offset: float
    scale: float

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """A float32 array of the same shape, windowed and scaled."""
        out = values.astype(np.float32)
        np.clip(out, np.float32(self.low), np.float32(self.high), out=out)
        out -= np.float32(self.offset)
        out *= np.float32(self.scale)
        return out


def fit_intensity(channel: NDArray[Any], plan: Plan) -> IntensityTransform:
    """The transform that the plan's window and scaling give for one volume's channel.

    Args:
        channel: Voxels of one channel, any shape, any real dtype, finite.
        plan: Its `window` and `scaling` are used.

    Returns:
        A transform; a constant channel maps to zeros (the scale is then 1).
    """
    window = plan.window
    if isinstance(window, HounsfieldWindow):
        low, high = window.low, window.high
    elif isinstance(window, QuantileWindow):
        low, high = _quantiles(channel, window)
    else:
        low, high = -np.inf, np.inf
    if plan.scaling == "minmax":
        # The extremes of the clipped values are the clipped extremes: one pass, no copy.
        smallest, largest = np.clip([channel.min(), channel.max()], low, high)
        spread = float(largest - smallest)
        offset = float(smallest)
    else:
        offset, spread = _clipped_mean_and_sd(channel, low, high)
    return IntensityTransform(low, high, offset, 1.0 / spread if spread > 0 else 1.0)


def _quantiles(channel: NDArray[Any], window: QuantileWindow) -> tuple[float, float]:
    values = channel.ravel(order="K")
    if window.nonzero_only:
        values = values[values != 0]
        if values.size == 0:
            return 0.0, 0.0
    low, high = np.quantile(values, [window.low, window.high])
    return float(low), float(high)


def _clipped_mean_and_sd(channel: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    values = channel.ravel(order="K")
    total = total_squares = 0.0
    for start in range(0, values.size, _SLAB_VOXELS):
        slab = np.clip(values[start : start + _SLAB_VOXELS].astype(np.float64), low, high)
        total += float(slab.sum())
        total_squares += float((slab**2).sum())
    mean = total / values.size
    variance = max(total_squares / values.size - mean**2, 0.0)
    return mean, float(np.sqrt(variance))
