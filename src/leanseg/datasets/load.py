"""Reading the volumes of a case: its channels and its label map, checked to lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes.grids import on_grid_of
from leanseg.volumes.volume import Volume


def load_image(sources: Sequence[VolumeSource]) -> Volume:
    """A scan from one source, or from one for each channel.

    Returns:
        Voxels (i, j, k), or (i, j, k, channel).

    Raises:
        LeansegError: If a file cannot be read, or channels do not lie on one grid.
        DatasetError: If voxels are not finite.
    """
    image = _stacked([read_source(source) for source in sources])
    if image.array.dtype.kind == "f":
        # Slice by slice: a mask of the whole scan would be a good part of its size again.
        slices = np.moveaxis(image.array, 2, 0)
        n_odd = sum(part.size - np.count_nonzero(np.isfinite(part)) for part in slices)
        if n_odd:
            msg = f"{sources[0].path}: {n_odd} voxels are NaN or infinite; export the scan again"
            raise DatasetError(msg)
    return image


def _stacked(volumes: Sequence[Volume]) -> Volume:
    first, *others = volumes
    if not others:
        return first
    for volume in volumes:
        if volume.array.ndim == 4:
            msg = (
                f"{volume.path}: one of several channel files, but has {volume.n_channels} "
                "channels; split it, or list it alone"
            )
            raise DatasetError(msg)
    arrays = [on_grid_of(first, volume).array for volume in volumes]
    return first.with_array(np.stack(arrays, axis=-1))


def load_label(parts: Sequence[LabelPart], image: Volume) -> Volume:
    """A label map on its scan's grid, its parts laid over each other in order.

    Args:
        parts: At least one.
        image: The scan.

    Returns:
        Voxels (i, j, k), uint8 or uint16.

    Raises:
        LeansegError: If a file cannot be read, or does not lie on the scan's grid.
        DatasetError: If labels are not whole numbers from 0 on.
    """
    merged: Volume | None = None
    for part in parts:
        volume = on_grid_of(image, as_label_map(read_source(part.source, image)))
        values = np.maximum(translated(part, volume.array), 0)
        if merged is not None:
            values = np.where(values > 0, values, merged.array)
        merged = as_label_map(volume.with_array(values))
    assert merged is not None  # there are parts
    return merged


def translated(part: LabelPart, array: NDArray[Any]) -> NDArray[Any]:
    """A part's own whole values as labels of the dataset; -1 where its list leaves out a value."""
    if part.value is not None:
        return np.where(array > 0, part.value, 0)
    if part.values is None:
        return array
    table = np.full(max(int(array.max()), *part.values, 0) + 1, -1, dtype=np.int32)
    table[0] = 0
    table[list(part.values)] = list(part.values.values())
    return np.asarray(table[array])


def as_label_map(volume: Volume) -> Volume:
    """The volume with its voxels as uint8, or uint16 past 255.

    Raises:
        DatasetError: If voxels are not whole numbers from 0 to 65535, or there are channels.
    """
    array, name = volume.array, volume.path or "a label map in memory"
    if array.ndim == 4:
        msg = f"{name}: a label map has one value per voxel, found shape {array.shape}; merge it"
        raise DatasetError(msg)
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            odd = ~(np.isfinite(array) & (array == np.round(array)))
        if odd.any():
            msg = f"{name}: label {array[odd][0]} is not a whole number; export the label map again"
            raise DatasetError(msg)
    low, high = array.min(), array.max()
    if low < 0 or high > np.iinfo(np.uint16).max:
        msg = f"{name}: labels run from {low:g} to {high:g}; they must lie between 0 and 65535"
        raise DatasetError(msg)
    dtype = np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16
    return volume.with_array(array.astype(dtype, copy=False))
