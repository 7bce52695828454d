"""MetaImage (.mha, .mhd) and NRRD out, through SimpleITK; `leanseg.volumes.headed` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import LeansegError
from leanseg.files import written_whole
from leanseg.volumes.axes import LPS_TO_RAS


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
