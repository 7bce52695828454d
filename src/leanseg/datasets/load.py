"""Reading one case: scan and label map, checked to lie on the same grid."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from leanseg.datasets.case import Case, Dataset
from leanseg.errors import DatasetError, GeometryError
from leanseg.volumes.volume import Volume

# Farthest that the same corner voxel of two files may lie apart, in voxels. Headers that hold
# the orientation as a quaternion and as a matrix differ by more than rounding at far corners.
GRID_TOLERANCE_VOXELS = 0.01


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
    from leanseg.volumes import read_volume

    image = _stack([read_volume(file) for file in case.images])
    if dataset is not None and image.n_channels != len(dataset.channels):
        msg = (
            f"{case.images[0]}: has {image.n_channels} channel(s), but the dataset names "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)}); correct one of the two"
        )
        raise DatasetError(msg)
    if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
        count = int(image.array.size - np.isfinite(image.array).sum())
        msg = f"{case.images[0]}: {count} voxels are NaN or infinite; export the scan again"
        raise DatasetError(msg)
    if case.label is None:
        return image, None
    label = as_label_map(read_volume(case.label))
    check_same_grid(image, label)
    return image, label


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


def check_same_grid(first: Volume, second: Volume) -> None:
    """Check that voxel (i, j, k) is the same place in both.

    Raises:
        GeometryError: If shapes differ, or a corner voxel lies apart by more than a hundredth
            of the smallest spacing.
    """
    names = f"{_name(first)} and {_name(second)}"
    if first.shape != second.shape:
        msg = (
            f"{names} have different shapes, {first.shape} and {second.shape}; "
            "resample one to the grid of the other"
        )
        raise GeometryError(msg)
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in first.shape))])
    apart_mm = np.linalg.norm(corners @ (first.affine - second.affine).T[:, :3], axis=1).max()
    if apart_mm > GRID_TOLERANCE_VOXELS * min(first.spacing_mm):
        msg = (
            f"{names} lie on different grids: the same voxel is up to {apart_mm:.3g} mm apart; "
            "correct the header, or resample one to the grid of the other"
        )
        raise GeometryError(msg)


def _name(volume: Volume) -> Path | str:
    return volume.path if volume.path is not None else "a volume"


def _stack(volumes: list[Volume]) -> Volume:
    first = volumes[0]
    if len(volumes) == 1:
        return first
    for other in volumes:
        check_same_grid(first, other)
        if other.array.ndim == 4:
            msg = f"{other.path}: one of several channel files, but has {other.n_channels} channels"
            raise DatasetError(msg)
    return first.with_array(np.stack([volume.array for volume in volumes], axis=-1))
