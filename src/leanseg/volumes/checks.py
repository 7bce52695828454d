"""Checks at the boundary: what a file must hold before anything is computed from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from leanseg.errors import GeometryError, LeansegError
from leanseg.volumes.volume import AnyVolume


def squeezed_shape(shape: Sequence[int], path: Path) -> tuple[int, ...]:
    """The shape of a stored array without singleton axes past the third.

    Args:
        shape: As stored, spatial axes first.
        path: For the message.

    Returns:
        (i, j, k) or (i, j, k, channel).

    Raises:
        GeometryError: If the array has fewer than three axes, an empty one, or more than one
            axis of channels.
    """
    kept = tuple(int(n) for n in (*shape[:3], *(n for n in shape[3:] if n != 1)))
    if min(kept, default=0) < 1:
        msg = f"{path}: shape {tuple(shape)} has an empty axis; export the scan again"
        raise GeometryError(msg)
    if len(kept) not in (3, 4):
        msg = (
            f"{path}: expected a 3-D volume (or 4-D with channels), found a {len(shape)}-D image "
            f"of shape {tuple(int(n) for n in shape)}; convert it to a 3-D volume first"
        )
        raise GeometryError(msg)
    return kept


def label_dtype(highest: int) -> type[np.uint8] | type[np.uint16]:
    """Type of a label map whose labels go up to `highest`: uint8 or, past 255, uint16."""
    return np.uint8 if highest <= 255 else np.uint16


def require_finite(volume: AnyVolume) -> None:
    """Refuse a volume with NaN or infinite voxels.

    Raises:
        LeansegError: Naming the file and the number of such voxels.
    """
    if volume.dtype.kind not in "fc":
        return
    n_nan = n_infinite = 0
    # Slice by slice: a mask of the whole volume would be one more copy of it.
    for section in volume.slabs(1):
        if not np.isfinite(section).all():
            n_nan += int(np.isnan(section).sum())
            n_infinite += int(np.isinf(section).sum())
    if n_nan or n_infinite:
        found = " and ".join(
            f"{n} {name}" for n, name in ((n_nan, "NaN"), (n_infinite, "infinite")) if n
        )
        msg = (
            f"{volume.path or 'the volume'}: {found} of {math.prod(volume.array_shape)} voxels; "
            "replace them by the background value (air in CT is -1024) or export the scan again"
        )
        raise LeansegError(msg)
