"""A region of a scan as the single input of a 3-D network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError
from leanseg.preprocessing.fused import axis_taps, prepare_slice
from leanseg.preprocessing.intensity import fit_intensity
from leanseg.preprocessing.plan import Plan
from leanseg.preprocessing.resampled import resize_planes
from leanseg.preprocessing.slices import check_channels
from leanseg.volumes import Box, Volume, reoriented_view

# Along an axis, in the spacing of a network: 2 m in steps of 0.1 mm.
_MOST_VOXELS = 20_000


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
    """Spacing of a scan along the axes of the plan's orientation, in mm.

    Raises:
        GeometryError: If the scan would have absurdly many voxels in the plan's spacing: its
            header is wrong.
    """
    i, j, k = (
        next(
            mm
            for mm, own in zip(volume.spacing_mm, volume.orientation, strict=True)
            if any(code in pair and own in pair for pair in ("LR", "PA", "IS"))
        )
        for code in plan.orientation
    )
    if plan.spacing_mm is not None:
        longest_mm = max(n * mm for n, mm in zip(volume.shape, volume.spacing_mm, strict=True))
        if longest_mm / min(plan.spacing_mm) > _MOST_VOXELS:
            msg = (
                f"{volume.path or 'the scan'}: is {longest_mm / 1000:.4g} m long by its header "
                f"(voxels of {' x '.join(f'{mm:.4g}' for mm in volume.spacing_mm)} mm); "
                "correct the spacing or export the scan again"
            )
            raise GeometryError(msg)
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
    rows, columns, n_planes = plan.volume_shape
    out = np.empty((1, len(channels), *plan.volume_shape), dtype=np.float32)
    for index, channel in enumerate(channels):
        transform = fit_intensity(channel, plan)
        region = channel[box.slices]
        small = np.empty((region.shape[2], rows, columns), dtype=np.float32)
        for k, plane in enumerate(small):
            prepare_slice(region[:, :, k], transform, plane, antialias=False)
        planes = resize_planes(small, axis_taps(len(small), n_planes, antialias=False))
        out[0, index] = planes.transpose(1, 2, 0)
    return out
