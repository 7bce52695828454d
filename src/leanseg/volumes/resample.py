"""Volumes on other grids, with the affine that keeps every voxel's place in the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError
from leanseg.volumes.resize import Interpolation, resize_array
from leanseg.volumes.volume import Volume


def resized_affine(
    affine: NDArray[np.float64], from_shape: Sequence[int], to_shape: Sequence[int]
) -> NDArray[np.float64]:
    """The affine of a grid that covers the same field of view with other numbers of voxels.

    With half-pixel centres, voxel 0 of the new grid lies at old index (n_in / n_out - 1) / 2.
    """
    scale = np.asarray(from_shape[:3], dtype=np.float64) / np.asarray(to_shape[:3])
    to_old_index = np.diag([*scale, 1.0])
    to_old_index[:3, 3] = (scale - 1.0) / 2.0
    return np.asarray(affine, dtype=np.float64) @ to_old_index


def resize(volume: Volume, shape: Sequence[int], interpolation: Interpolation = "linear") -> Volume:
    """The volume with another number of voxels over the same field of view.

    Args:
        volume: 3-D, or 4-D whose channels are resized alike.
        shape: Wanted voxels along the three axes.
        interpolation: "linear" (float32, anti-aliased when shrinking) or "nearest".

    Raises:
        GeometryError: If the shape is not three positive numbers.
    """
    if len(shape) != 3 or min(shape) < 1:
        msg = f"cannot resize to shape {tuple(shape)}: give three numbers of voxels, each 1 or more"
        raise GeometryError(msg)
    array = resize_array(volume.array, shape, interpolation)
    if tuple(shape) == volume.shape:
        return volume.with_array(array)
    affine = resized_affine(volume.affine, volume.shape, shape)
    return Volume(array=array, affine=affine, path=volume.path)


def resample_to_spacing(
    volume: Volume,
    spacing_mm: Sequence[float],
    interpolation: Interpolation = "linear",
) -> Volume:
    """The volume at the spacing nearest to the wanted one that keeps its field of view.

    The number of voxels is whole, so the spacing differs from the wanted one by at most half a
    voxel over the whole axis; `spacing_mm` of the result is exact.

    Raises:
        GeometryError: If a spacing is not positive.
    """
    wanted = np.asarray(spacing_mm, dtype=np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or wanted.min() <= 0:
        msg = f"cannot resample to spacing {tuple(spacing_mm)}: give three positive lengths in mm"
        raise GeometryError(msg)
    extent = np.array(volume.shape) * np.array(volume.spacing_mm)
    shape = np.maximum(1, np.rint(extent / wanted)).astype(int)
    return resize(volume, shape.tolist(), interpolation)


def resample_to(
    volume: Volume,
    reference: Volume,
    interpolation: Interpolation = "linear",
    outside: float = 0.0,
) -> Volume:
    """The volume on the grid of another one, matched in world space, whatever the two affines.

    Where the reference's voxels are larger, linear interpolation first shrinks the volume with
    anti-aliasing, along its own axes. Within the field of view but beyond the outermost voxel
    centres (half a voxel), values are those of the edge.

    Args:
        volume: 3-D, or 4-D whose channels are resampled alike.
        reference: Gives the grid; its voxels are not used.
        interpolation: "linear" gives float32, "nearest" keeps the type.
        outside: Value beyond the volume's field of view.

    Returns:
        A volume with the reference's affine, bit for bit, and its NIfTI header.
    """
    source = volume
    if interpolation == "linear":
        # How far, in source voxels, one step along any axis of the reference goes.
        steps = np.abs(_index_map(volume, reference)[:3, :3]).max(axis=1)
        shape = np.maximum(1, np.rint(np.array(volume.shape) / np.maximum(steps, 1.0)))
        source = resize(volume, shape.astype(int).tolist(), "linear")
    index_map = _index_map(source, reference)
    channels = source.array if source.array.ndim == 4 else source.array[..., None]
    resampled = [
        _resample_channel(channels[..., n], index_map, reference.shape, interpolation, outside)
        for n in range(channels.shape[3])
    ]
    array = resampled[0] if source.array.ndim == 3 else np.stack(resampled, axis=-1)
    return Volume(array=array, affine=reference.affine, path=volume.path, header=reference.header)


def _index_map(volume: Volume, reference: Volume) -> NDArray[np.float64]:
    """From voxel indices of the reference to (fractional) ones of the volume."""
    return np.asarray(np.linalg.solve(volume.affine, reference.affine), dtype=np.float64)


def _resample_channel(
    array: NDArray[Any],
    index_map: NDArray[np.float64],
    shape: tuple[int, int, int],
    interpolation: Interpolation,
    outside: float,
) -> NDArray[Any]:
    """(i, j, k) onto `shape`. In index space, where SimpleITK need not know of any shear."""
    import SimpleITK as sitk  # noqa: N813

    dtype = np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=dtype))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(index_map[:3, :3].ravel().tolist())
    transform.SetTranslation(index_map[:3, 3].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(shape)
    resampler.SetTransform(transform)
    resampler.SetDefaultPixelValue(outside)
    nearest = interpolation == "nearest"
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    result: NDArray[Any] = sitk.GetArrayFromImage(resampler.Execute(image)).T
    return result.astype(array.dtype, copy=False)
