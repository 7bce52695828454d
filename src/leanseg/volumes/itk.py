"""MetaImage (.mha, .mhd) and NRRD in and out, through SimpleITK."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, LeansegError
from leanseg.files import written_whole
from leanseg.volumes.axes import LPS_TO_RAS
from leanseg.volumes.volume import StoredVolume, Volume, squeezed_shape

# Blocks of a file and of its unpacked form.
_READER_BYTES = 4_000_000


class _Owned:
    """An image's voxels for numpy, without a copy: an array made of it keeps the image alive."""

    def __init__(self, image: Any, view: NDArray[Any]) -> None:
        self._image = image
        address, _ = view.__array_interface__["data"]
        self.__array_interface__ = {**view.__array_interface__, "data": (address, False)}


def open_itk(path: Path) -> StoredVolume:
    """A MetaImage or NRRD file; components or a fourth axis become channels.

    Integer voxels keep their type, floats become float32.

    Raises:
        FileFormatError: If SimpleITK cannot read the header or the voxels are complex.
        GeometryError: If the grid is not 3-D (4-D with channels).
    """
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path) from error
    kind, components = reader.GetPixelID(), reader.GetNumberOfComponents()
    pixel_type = sitk.GetPixelIDValueAsString(kind)
    if "complex" in pixel_type:
        msg = f"{path}: voxels of type {pixel_type} are not grey values; convert the scan to an "
        raise FileFormatError(f"{msg}integer or float type first")
    # An image of one voxel tells which of numpy's types is meant.
    one = sitk.Image([1, 1, 1], kind, components if "vector" in pixel_type else 0)
    stored_dtype = sitk.GetArrayViewFromImage(one).dtype
    dtype = np.dtype(np.float32) if stored_dtype.kind == "f" else stored_dtype
    size = reader.GetSize()
    # Components become channels; those of a 2-D picture are not a third axis.
    shape = squeezed_shape((*size, components) if len(size) > 2 else size, path)
    # Compressed voxels are read whole before they are unpacked, and floats are converted after.
    reading = _READER_BYTES + path.stat().st_size
    if stored_dtype != dtype:
        reading += math.prod(shape) * stored_dtype.itemsize
    return StoredVolume(
        path,
        shape,
        dtype,
        _affine(reader),
        read=lambda: _read(path, shape, dtype),
        reading_bytes=reading,
    )


def _read(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Volume:
    import SimpleITK as sitk  # noqa: N813

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _unreadable(path) from error
    n_axes = image.GetDimension()
    voxels = np.asarray(_Owned(image, sitk.GetArrayViewFromImage(image)))
    # SimpleITK gives (..., k, j, i) with components, if any, last.
    array = voxels.transpose((*reversed(range(n_axes)), *range(n_axes, voxels.ndim)))
    with np.errstate(over="ignore"):
        array = array.reshape(shape, order="F").astype(dtype, copy=False)
    return Volume(array=array, affine=_affine(image), path=path)


def _unreadable(path: Path) -> FileFormatError:
    # ITK's own reason is often left over from another call.
    msg = f"{path}: cannot be read: it is not a MetaImage or NRRD file, or its voxel data are "
    return FileFormatError(f"{msg}missing, damaged or cut short; copy or export it again")


def _affine(image: Any) -> NDArray[np.float64]:
    n_axes = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(n_axes, n_axes)[:3, :3]
    to_lps = np.eye(4)
    to_lps[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    to_lps[:3, 3] = image.GetOrigin()[:3]
    return np.asarray(LPS_TO_RAS @ to_lps)


def write_itk(
    path: Path, array: NDArray[Any], affine: NDArray[np.float64], *, compress: bool
) -> None:
    """Write a MetaImage or NRRD file atomically; for .mhd the data file lies beside it.

    Args:
        path: Ends in .mha, .mhd or .nrrd.
        array: Voxels (i, j, k) or (i, j, k, channel).
        affine: To RAS+ mm.
        compress: With zlib, small and slow.

    Raises:
        LeansegError: If the file cannot be written.
    """
    import SimpleITK as sitk  # noqa: N813

    has_channels = array.ndim == 4
    voxels = array.transpose(2, 1, 0, 3) if has_channels else array.transpose(2, 1, 0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels), isVector=has_channels)
    to_lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    with written_whole(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=compress)
            # Before another of its size is read.
            del image
            # ITK does not notice when the last buffer finds the disk full; reading does.
            sitk.ReadImage(str(temporary))
        except RuntimeError as error:
            msg = f"{path}: cannot be written, the disk may be full; free some space, check that "
            raise LeansegError(f"{msg}you may write there, and run again") from error
