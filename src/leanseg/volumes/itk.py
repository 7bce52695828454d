"""MetaImage (.mha, .mhd) and NRRD in and out, through SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, LeansegError
from leanseg.volumes.atomic import written_whole
from leanseg.volumes.checks import squeezed_shape
from leanseg.volumes.volume import Volume

# ITK's world is LPS+, ours RAS+: the first two coordinates change sign.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(path: Path) -> Volume:
    """Read a MetaImage or NRRD file; components or a fourth axis become channels.

    Integer voxels keep their type, floats become float32.

    Raises:
        FileFormatError: If SimpleITK cannot read the file or its voxels are complex.
        GeometryError: If the grid is not 3-D (4-D with channels).
    """
    import SimpleITK as sitk  # noqa: N813

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        msg = f"{path}: cannot be read ({_reason(error)}); copy or export it again"
        raise FileFormatError(msg) from error
    if "complex" in image.GetPixelIDTypeAsString():
        msg = (
            f"{path}: voxels of type {image.GetPixelIDTypeAsString()} are not grey values; "
            "convert the scan to an integer or float type first"
        )
        raise FileFormatError(msg)
    n_axes = image.GetDimension()
    voxels = sitk.GetArrayFromImage(image)
    # SimpleITK gives (..., k, j, i) with components, if any, last.
    axes = (*reversed(range(n_axes)), *range(n_axes, voxels.ndim))
    array = voxels.transpose(axes)
    array = array.reshape(squeezed_shape(array.shape, path), order="F")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
    direction = np.array(image.GetDirection()).reshape(n_axes, n_axes)[:3, :3]
    to_lps = np.eye(4)
    to_lps[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    to_lps[:3, 3] = image.GetOrigin()[:3]
    return Volume(array=array, affine=_LPS_TO_RAS @ to_lps, path=path)


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
    to_lps = _LPS_TO_RAS @ affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    with written_whole(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=compress)
        except RuntimeError as error:
            msg = (
                f"{path}: cannot be written ({_reason(error)}); "
                "check that the disk has space and that you may write there"
            )
            raise LeansegError(msg) from error


def _reason(error: RuntimeError) -> str:
    """The last line of ITK's message, without the address of the object that failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else "unknown reason"
    return last.split("): ", 1)[-1].removeprefix("ITK ERROR: ").rstrip(".")
