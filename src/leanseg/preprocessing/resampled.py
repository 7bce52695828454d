"""A scan in the voxel spacing that a 3-D network was trained with, some planes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.preprocessing.intensity import IntensityTransform, fit_intensity
from leanseg.preprocessing.plan import Plan
from leanseg.volumes import axis_weights, resize_slices


def resampled_shape(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    wanted_mm: Sequence[float] | None,
) -> tuple[int, int, int]:
    """Number of voxels of a scan in another spacing: the nearest whole number, at least 1.

    Args:
        shape: Of the scan.
        spacing_mm: Of the scan, along the same axes.
        wanted_mm: The new spacing; None keeps the scan's.
    """
    if wanted_mm is None:
        i, j, k = shape
        return i, j, k
    i, j, k = (
        max(1, round(length * own / wanted))
        for length, own, wanted in zip(shape, spacing_mm, wanted_mm, strict=True)
    )
    return i, j, k


class ResampledScan:
    """A scan windowed, scaled and resampled plane by plane, as a network sees it in tiles.

    Linear with half-pixel centres and with anti-aliasing where an axis shrinks
    (`leanseg.volumes.resize`), in-plane first. Only the slices that a plane lies between are ever
    held as floating point numbers.

    Args:
        channels: The scan's channels (i, j, k) in the plan's orientation, in the plan's order.
        plan: Its window, scaling and `spacing_mm` are used.
        spacing_mm: Of the scan along i, j, k.

    Attributes:
        shape: (i, j, k) of the resampled scan.
    """

    def __init__(
        self,
        channels: Sequence[NDArray[Any]],
        plan: Plan,
        spacing_mm: Sequence[float],
    ) -> None:
        self._channels = list(channels)
        self._transforms: list[IntensityTransform] = [
            fit_intensity(channel, plan) for channel in channels
        ]
        self.shape = resampled_shape(channels[0].shape, spacing_mm, plan.spacing_mm)
        self._along_k = axis_weights(channels[0].shape[2], self.shape[2])

    def read(self, start: int, out: NDArray[np.float32]) -> None:
        """Fill `out` (plane, channel, i, j) with the planes from `start` on."""
        weights = self._along_k[start : start + len(out)]
        used = np.flatnonzero(weights.any(axis=0))
        slices = slice(int(used[0]), int(used[-1]) + 1)
        for number, (channel, transform) in enumerate(
            zip(self._channels, self._transforms, strict=True)
        ):
            own = transform.apply(np.moveaxis(channel[:, :, slices], 2, 0))
            small = resize_slices(own, self.shape[:2])
            if channel.shape[2] == self.shape[2]:
                out[:, number] = small
            else:
                out[:, number] = np.tensordot(weights[:, slices], small, (1, 0))
