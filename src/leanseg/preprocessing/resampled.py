"""A scan in the voxel spacing that a 3-D network was trained with, some planes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.preprocessing.fused import AxisTaps, axis_taps, prepare_slice, resize_lines
from leanseg.preprocessing.intensity import IntensityTransform, fit_intensity
from leanseg.preprocessing.plan import Plan


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


def resize_planes(
    planes: NDArray[np.float32], taps: AxisTaps | None, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Interpolate along the first axis.

    Args:
        planes: (n_in, ...) in C order.
        taps: Interpolation to n_out planes; None leaves them as they are.
        out: (n_out, ...), filled; the axes behind the first lie as in C order.

    Returns:
        (n_out, ...).
    """
    if taps is None:
        if out is None:
            return planes
        out[...] = planes
        return out
    out = np.empty((taps.n_out, *planes.shape[1:]), dtype=np.float32) if out is None else out
    scratch = np.empty((taps.n_out, planes[0].size), dtype=np.float32)
    lines = out.view()
    lines.shape = scratch.shape
    resize_lines(planes.reshape(len(planes), -1), taps, lines, scratch)
    return out


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
        self._taps = axis_taps(channels[0].shape[2], self.shape[2])

    def read(self, start: int, out: NDArray[np.float32]) -> None:
        """Fill `out` (plane, channel, i, j), in C order, with the planes from `start` on."""
        first, last, taps = start, start + len(out), None
        if self._taps is not None:
            taps, first, last = self._taps.part(start, start + len(out))
        own = np.empty((last - first, *out.shape[1:]), dtype=np.float32) if taps else out
        for number, (channel, transform) in enumerate(
            zip(self._channels, self._transforms, strict=True)
        ):
            for k in range(first, last):
                prepare_slice(channel[:, :, k], transform, own[k - first, number])
        if taps is not None:
            resize_planes(own, taps, out)
