"""Volumes on other grids, with the affine that keeps every voxel's place in the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError
from leanseg.volumes.resize import Interpolation, resize_array
from leanseg.volumes.volume import AnyVolume, Volume


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


def resample(
    volume: Volume,
    reference: AnyVolume | None = None,
    interpolation: Interpolation = "linear",
    *,
    spacing_mm: Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
    outside: float = 0.0,
) -> Volume:
    """The volume on another grid; give exactly one of `reference`, `spacing_mm` and `shape`.

    With a spacing or shape the field of view is kept. As the number of voxels is whole, the
    spacing then differs from the wanted one by at most half a voxel over the whole axis; that of
    the result is exact. With a reference the two are matched in world space, whatever their
    affines: within the volume's field of view but beyond its outermost voxel centres (half a
    voxel), values are those of the edge.

    Args:
        volume: 3-D, or 4-D whose channels are resampled alike.
        reference: Gives the grid; its voxels are not used.
        interpolation: "linear" gives float32, anti-aliased along the volume's own axes where the
            new voxels are larger; "nearest" keeps the type, for label maps.
        spacing_mm: Wanted distance between voxel centres along the three axes.
        shape: Wanted number of voxels along the three axes.
        outside: Value beyond the volume's field of view.

    Returns:
        A volume with the reference's affine, bit for bit, and its NIfTI header, or without one
        where the grid is new.

    Raises:
        GeometryError: If a spacing or shape is not three positive numbers.
        ValueError: If not exactly one grid is given.

    Example:
        >>> import numpy as np
        >>> from leanseg.volumes import Volume, resample
        >>> scan = Volume(np.zeros((100, 50, 11)), np.diag([0.8, 0.8, 3.0, 1.0]))
        >>> resample(scan, spacing_mm=(1.0, 1.6, 3.0)).shape
        (80, 25, 11)
    """
    if sum(grid is not None for grid in (reference, spacing_mm, shape)) != 1:
        raise ValueError("resample takes exactly one of reference, spacing_mm and shape")
    if reference is not None:
        return _resample_to(volume, reference, interpolation, outside)
    wanted = np.asarray(shape if spacing_mm is None else spacing_mm, dtype=np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or wanted.min() <= 0:
        msg = f"cannot resample to {wanted.tolist()}: give three positive numbers, one an axis"
        raise GeometryError(msg)
    if spacing_mm is not None:
        extent_mm = np.array(volume.shape) * np.array(volume.spacing_mm)
        wanted = np.maximum(1, np.rint(extent_mm / wanted))
    return _resize(volume, wanted.astype(int).tolist(), interpolation)


def _resize(volume: Volume, shape: Sequence[int], interpolation: Interpolation) -> Volume:
    array = resize_array(volume.array, shape, interpolation)
    if tuple(shape) == volume.shape:
        return volume.with_array(array)
    affine = resized_affine(volume.affine, volume.shape, shape)
    return Volume(array=array, affine=affine, path=volume.path)


def _resample_to(
    volume: Volume, reference: AnyVolume, interpolation: Interpolation, outside: float
) -> Volume:
    source = volume
    if interpolation == "linear":
        # How far, in source voxels, one step along any axis of the reference goes.
        steps = np.abs(_index_map(volume, reference)[:3, :3]).max(axis=1)
        shape = np.maximum(1, np.rint(np.array(volume.shape) / np.maximum(steps, 1.0)))
        source = _resize(volume, shape.astype(int).tolist(), "linear")
    index_map = _index_map(source, reference)
    channels = source.array if source.array.ndim == 4 else source.array[..., None]
    resampled = [
        _resample_channel(channels[..., n], index_map, reference.shape, interpolation, outside)
        for n in range(channels.shape[3])
    ]
    array = resampled[0] if source.array.ndim == 3 else np.stack(resampled, axis=-1)
    return Volume(array=array, affine=reference.affine, path=volume.path, header=reference.header)


def _index_map(volume: Volume, reference: AnyVolume) -> NDArray[np.float64]:
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
