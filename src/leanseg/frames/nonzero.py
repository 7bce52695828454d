"""Where a scan is not zero, as skull-stripped and defaced ones are around the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.frames.view import ScanView
from leanseg.volumes import Box

_SLICES_AT_ONCE = 8


def find_nonzero(view: ScanView) -> Box | None:
    """The smallest box around the voxels that are not 0 in some channel; None where all are."""
    seen = [np.zeros(n, dtype=bool) for n in view.shape]
    for start, channels in view.pieces(_SLICES_AT_ONCE, 0, view.shape[2]):
        mask = _nonzero(channels)
        seen[0] |= mask.any(axis=(1, 2))
        seen[1] |= mask.any(axis=(0, 2))
        seen[2][start : start + mask.shape[2]] = mask.any(axis=(0, 1))
    if not seen[0].any():
        return None
    i, j, k = ((int(each.argmax()), each.size - int(each[::-1].argmax())) for each in seen)
    return Box((i[0], j[0], k[0]), (i[1], j[1], k[1]))


def enclosed_by_nonzero(channels: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Voxels (i, j, k) that are not 0 in some channel, or that such ones enclose."""
    from scipy import ndimage

    mask = _nonzero(channels)
    zeros, _ = ndimage.label(~mask)
    outside = np.zeros(zeros.max() + 1, dtype=bool)
    for axis in range(3):
        outside[np.take(zeros, (0, -1), axis=axis)] = True
    # What is not zero has the number 0 there.
    outside[0] = False
    return np.logical_not(outside[zeros])


def _nonzero(channels: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    mask = channels[0] != 0
    for channel in channels[1:]:
        mask |= channel != 0
    return mask
