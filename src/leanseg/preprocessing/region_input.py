"""A region of a scan as the single input of a 3-D network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.preprocessing.intensity import fit_intensity
from leanseg.preprocessing.plan import Plan
from leanseg.preprocessing.slices import check_channels
from leanseg.volumes import Box, Volume, axis_weights, reoriented_view


def scan_channels(
    volume: Volume, plan: Plan, channel_indices: Sequence[int] | None = None
) -> list[NDArray[Any]]:
    """The plan's channels of a scan, (i, j, k) in the plan's orientation, as views.

    Raises:
        DatasetError: If the volume does not have the channels that the plan names.
    """
    array = reoriented_view(volume.array, volume.orientation, plan.orientation)
    channels = [array] if array.ndim == 3 else list(np.moveaxis(array, 3, 0))
    wanted = range(len(channels)) if channel_indices is None else channel_indices
    check_channels(volume, plan, wanted)
    return [channels[index] for index in wanted]


def plan_spacing_mm(volume: Volume, plan: Plan) -> tuple[float, float, float]:
    """Spacing of a scan along the axes of the plan's orientation, in mm."""
    i, j, k = (
        next(
            mm
            for mm, own in zip(volume.spacing_mm, volume.orientation, strict=True)
            if any(code in pair and own in pair for pair in ("LR", "PA", "IS"))
        )
        for code in plan.orientation
    )
    return i, j, k


def region_input(channels: Sequence[NDArray[Any]], plan: Plan, box: Box) -> NDArray[np.float32]:
    """A region windowed, scaled and resized to the plan's `volume_shape`.

    Trilinear with half-pixel centres and without anti-aliasing, as the protocols of 3-D networks
    have it (paper 004's public preprocessing).

    Args:
        channels: From `scan_channels`.
        plan: The plan, with a `volume_shape`.
        box: The region, in voxels of the channels.

    Returns:
        (1, channel, *volume_shape).
    """
    assert plan.volume_shape is not None
    out = np.empty((1, len(channels), *plan.volume_shape), dtype=np.float32)
    for index, channel in enumerate(channels):
        transform = fit_intensity(channel, plan)
        out[0, index] = _resized(channel[box.slices], transform.apply, plan.volume_shape)
    return out


def _resized(region: NDArray[Any], apply: Any, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Trilinear, slice by slice first: no float copy of the region in its own resolution."""
    rows, columns, planes = (
        axis_weights(n_in, n_out, antialias=False)
        for n_in, n_out in zip(region.shape, shape, strict=True)
    )
    small = np.empty((region.shape[2], shape[0], shape[1]), dtype=np.float32)
    for k in range(region.shape[2]):
        small[k] = rows @ apply(region[:, :, k]) @ columns.T
    return np.ascontiguousarray(np.tensordot(planes, small, (1, 0)).transpose(1, 2, 0))
