"""Grey values: windowing and per-volume scaling, fitted once per channel and then applied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import RecipeError
from leanseg.plan import (
    HounsfieldWindow,
    Intensity,
    LinearScaling,
    QuantileWindow,
    TrainingScaling,
    Window,
)

# A smaller spread of values than this has no inverse in float32; such a channel is constant.
_SMALLEST_SPREAD = 1e-30
# Enough to keep the overhead small, few enough to stop early.
_SLICES_AT_ONCE = 8


@dataclass(frozen=True)
class IntensityTransform:
    """x -> (clip(x, low, high) - offset) * scale, for one channel of one volume.

    With `levels` the clipped value first becomes the number of the nearest level: 0 for low,
    levels - 1 for high, and of two that are as near the even one.
    """

    low: float
    high: float
    offset: float
    scale: float
    levels: int | None = None

    def apply(
        self, values: NDArray[Any], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """A float32 array of the same shape in C order, windowed and scaled; `out` if given."""
        # In C order whatever the scan's own: what is computed from it then has the same bits.
        out = np.empty(values.shape, dtype=np.float32) if out is None else out
        with np.errstate(all="ignore"):  # what leaves the range of 32 bits is refused later
            np.copyto(out, values, casting="unsafe")
            np.clip(out, np.float32(self.low), np.float32(self.high), out=out)
            if self.levels:
                out -= np.float32(self.low)
                # In this order nothing is rounded of whole Hounsfield units, ties included.
                out *= np.float32(self.levels - 1)
                out /= np.float32(self.high - self.low)
                np.rint(out, out=out)
            out -= np.float32(self.offset)
            out *= np.float32(self.scale)
        return out


def fit_intensity(
    channel: NDArray[Any], intensity: Intensity, inside: NDArray[np.bool_] | None = None
) -> IntensityTransform:
    """The transform that a window and scaling give for one volume's channel.

    The result has the same bits for every storage order of the same voxels.

    Args:
        channel: Voxels of one channel (i, j, k) in the frame's orientation, any real dtype,
            finite.
        intensity: The window and scaling.
        inside: (i, j, k), the voxels that mean and deviation go by; None for all.

    Returns:
        A transform; a constant channel maps to zeros (the scale is then 1).

    Raises:
        RecipeError: If the scaling is by training volumes that nobody has looked at.
    """
    if isinstance(intensity.scaling, TrainingScaling):
        raise RecipeError(
            "intensity.scaling names training volumes, but only training turns them into numbers; "
            "give divide_by and add, minmax or zscore"
        )
    starts = range(0, channel.shape[2], _SLICES_AT_ONCE)
    slabs = (channel[:, :, start : start + _SLICES_AT_ONCE] for start in starts)
    if not needs_all_voxels(intensity):
        return fit_by_extremes(slabs, intensity)
    low, high = _limits(channel, intensity.window)
    if isinstance(intensity.scaling, LinearScaling):
        return _linear(low, high, intensity.scaling)
    if intensity.scaling == "minmax":
        least, greatest = _extremes(slabs, low, high)
        return _scaled(low, high, least, greatest - least)
    mean, variance = _clipped_mean_and_variance(channel, low, high, inside)
    return _scaled(low, high, mean, float(np.sqrt(variance)))


def windowed_moments(channel: NDArray[Any], window: Window) -> tuple[int, float, float]:
    """Voxels of a channel (i, j, k), and their mean and variance within a window."""
    return channel.size, *_clipped_mean_and_variance(channel, *_limits(channel, window))


def needs_all_voxels(intensity: Intensity) -> bool:
    """Whether quantiles or moments are asked for, which need a channel's voxels together."""
    linear_or_extremes = intensity.scaling == "minmax" or isinstance(
        intensity.scaling, LinearScaling
    )
    is_all = isinstance(intensity.window, QuantileWindow) or intensity.over != "scan"
    return is_all or not linear_or_extremes


def fit_by_extremes(slabs: Iterable[NDArray[Any]], intensity: Intensity) -> IntensityTransform:
    """The same from pieces of a channel in any order, where `needs_all_voxels` is not.

    Args:
        slabs: Pieces of the channel; no more are taken than are needed.
        intensity: A fixed window, with scaling by least and greatest value or linear.
    """
    low, high = _fixed_limits(intensity.window)
    levels = intensity.levels
    if isinstance(intensity.scaling, LinearScaling):
        return _linear(low, high, intensity.scaling, levels)
    least, greatest = _extremes(slabs, low, high)
    if levels:
        numbers = IntensityTransform(low, high, 0.0, 1.0, levels)
        least, greatest = map(float, numbers.apply(np.array([least, greatest])))
    return _scaled(low, high, least, greatest - least, levels)


def _limits(channel: NDArray[Any], window: Window) -> tuple[float, float]:
    if isinstance(window, QuantileWindow):
        return _quantiles(channel, window)
    return _fixed_limits(window)


def _fixed_limits(window: Window) -> tuple[float, float]:
    return (window.low, window.high) if isinstance(window, HounsfieldWindow) else (-np.inf, np.inf)


def _linear(
    low: float, high: float, scaling: LinearScaling, levels: int | None = None
) -> IntensityTransform:
    # x / d + a = (x + a d) / d
    offset, scale = -scaling.add * scaling.divide_by, 1 / scaling.divide_by
    if levels:
        # Level n is the grey value low + n step.
        step = (high - low) / (levels - 1)
        offset, scale = (offset - low) / step, scale * step
    return IntensityTransform(low, high, offset, scale, levels)


def _scaled(
    low: float, high: float, offset: float, spread: float, levels: int | None = None
) -> IntensityTransform:
    scale = 1 / spread if spread > _SMALLEST_SPREAD else 1.0
    return IntensityTransform(low, high, offset, scale, levels)


def _extremes(slabs: Iterable[NDArray[Any]], low: float, high: float) -> tuple[float, float]:
    """Least and greatest value of the clipped channel: the clipped extremes, without a copy."""
    least, greatest = np.inf, -np.inf
    for slab in slabs:
        least, greatest = min(least, float(slab.min())), max(greatest, float(slab.max()))
        if least <= low and greatest >= high:
            # Nothing that comes can be seen past the window; mostly so after the first slab.
            break
    return min(max(least, low), high), min(max(greatest, low), high)


def _quantiles(channel: NDArray[Any], window: QuantileWindow) -> tuple[float, float]:
    values = channel.ravel(order="K")
    if window.nonzero_only:
        values = values[values != 0]
        if values.size == 0:
            return 0.0, 0.0
    low, high = np.quantile(values, [window.low, window.high])
    return float(low), float(high)


def _clipped_mean_and_variance(
    channel: NDArray[Any], low: float, high: float, inside: NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """Mean and population variance, a slice at a time: no float copy of the scan."""
    n_voxels = channel.size if inside is None else np.count_nonzero(inside)
    # Sums of differences from one of the values: no digits are lost where the mean is large.
    origin = float(np.clip(float(channel[0, 0, 0]), low, high))
    total = total_squares = 0.0
    for k in range(channel.shape[2]):
        section = channel[:, :, k].astype(np.float64, order="C")
        np.clip(section, low, high, out=section)
        section -= origin
        if inside is not None:
            section *= inside[:, :, k]
        total += float(section.sum())
        total_squares += float(np.vdot(section, section))
    mean = total / n_voxels
    return origin + mean, max(total_squares / n_voxels - mean**2, 0.0)
