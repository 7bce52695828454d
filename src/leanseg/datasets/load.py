"""Reading one case: scan and label map, checked to lie on the same grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.readers import read_source
from leanseg.errors import DatasetError
from leanseg.volumes.grids import on_grid_of
from leanseg.volumes.volume import Volume


def load_case(case: Case, dataset: Dataset | None = None) -> tuple[Volume, Volume | None]:
    """The scan and the label map of a case.

    Args:
        case: One of the dataset's cases.
        dataset: Tells how many channels the scan must have; None accepts any number.

    Returns:
        The image, (i, j, k) or (i, j, k, channel), and the label map, (i, j, k) uint8 or
        uint16, or None where the case has none.

    Raises:
        FileFormatError: If a file cannot be read.
        GeometryError: If label map or channels do not lie on the same grid.
        DatasetError: If voxels are not finite, labels are not whole numbers from 0 on, or the
            number of channels is not the dataset's.
    """
    image = _stack([read_source(source) for source in case.images])
    if dataset is not None and image.n_channels != len(dataset.channels):
        msg = (
            f"{case.images[0].path}: has {image.n_channels} channel(s), but the dataset names "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)}); correct one of the two"
        )
        raise DatasetError(msg)
    n_odd = _n_not_finite(image.array)
    if n_odd:
        msg = f"{case.images[0].path}: {n_odd} voxels are NaN or infinite; export the scan again"
        raise DatasetError(msg)
    if not case.label_parts:
        return image, None
    return image, _label_map(case, image)


def _n_not_finite(array: NDArray[Any]) -> int:
    if array.dtype.kind != "f":
        return 0
    # Slice by slice: a mask of the whole scan would be a good part of its size again.
    return sum(
        int(np.size(section) - np.count_nonzero(np.isfinite(section)))
        for section in np.moveaxis(array, 2, 0)
    )


def as_label_map(volume: Volume) -> Volume:
    """The volume with its voxels as uint8, or uint16 past 255.

    Raises:
        DatasetError: If voxels are not whole numbers from 0 to 65535, or there are channels.
    """
    array, name = volume.array, volume.path
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


def _label_map(case: Case, image: Volume) -> Volume:
    """The case's label map on the image's grid, its parts laid over each other in order."""
    merged: Volume | None = None
    for part in case.label_parts:
        volume = on_grid_of(image, as_label_map(read_source(part.source, image)))
        if part.value is not None:
            values = np.where(volume.array > 0, part.value, 0)
        elif part.values is not None:
            table = np.zeros(max(int(volume.array.max()), *part.values) + 1, dtype=np.uint16)
            table[list(part.values)] = list(part.values.values())
            values = table[volume.array]
        else:
            values = volume.array
        if merged is not None:
            values = np.where(values > 0, values, merged.array)
        merged = as_label_map(volume.with_array(values))
    assert merged is not None  # asked for only where there are parts
    return merged


def _stack(volumes: list[Volume]) -> Volume:
    first = volumes[0]
    if len(volumes) == 1:
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
