"""Volumes from and to files, by suffix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError, LeansegError, told
from leanseg.files import require_file
from leanseg.volumes.archive import unpacked
from leanseg.volumes.placing import check_geometry
from leanseg.volumes.volume import StoredVolume, Volume, label_dtype

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")


def volume_suffix(path: Path) -> str | None:
    """The suffix, in lower case, by which a file is a volume; None where it has none."""
    name = path.name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), None)


def is_volume_path(path: str | Path) -> bool:
    """Whether a file name is one of a volume.

    Hidden files are not: archives made on a Mac hold a `._scan.nii.gz` beside each scan.
    """
    path = Path(path)
    return volume_suffix(path) is not None and not path.name.startswith(".")


def volume_stem(path: str | Path) -> str:
    """The file name without folder and volume suffix, to be told: "a/scan.1.nii.gz" is "scan.1"."""
    path = Path(path)
    suffix = volume_suffix(path)
    return told(path.stem if suffix is None else path.name[: -len(suffix)])


def _known_suffix(path: Path) -> str:
    suffix = volume_suffix(path)
    if suffix is None:
        known = ", ".join(VOLUME_SUFFIXES)
        msg = f"{path}: unknown kind of volume; leanseg reads and writes {known}, and reads DICOM"
        raise FileFormatError(f"{msg}: convert it to one of these")
    return suffix


def read_volume(path: str | Path, *, geometry: str = "auto", **dicom: Any) -> Volume:
    """Read a scan or a label map: NIfTI, MetaImage, NRRD or a DICOM series.

    Integer voxels keep their type (unless the file scales them); all others become float32.

    Args:
        path: A file, a folder or zip file with a DICOM series, or a place inside a zip file
            (`scans.zip/ct.nii.gz`).
        geometry: For NIfTI alone: which counts where sform and qform both have a code, "sform",
            "qform", or "auto" for the rule in `leanseg.volumes.placing`.
        **dicom: For DICOM alone, as in `leanseg.volumes.dicom.open_series`: `series` and `phase`
            choose, `modality` narrows the choice, `fill_missing` interpolates missing slices.
            The last two say nothing to other files.

    Returns:
        The volume in native byte order; for NIfTI with its header as stored.

    Raises:
        FileFormatError: If there is no such file, it is not what its name promises, or there is
            nothing in it to choose by `series` or `phase`.
        LeansegError: If there is no such geometry.
        GeometryError: If it is not a 3-D grid (4-D with channels) with an invertible affine.

    Example:
        >>> import numpy as np, tempfile
        >>> from leanseg.volumes import Volume, read_volume, write_volume
        >>> path = f"{tempfile.mkdtemp()}/ct.nii.gz"
        >>> write_volume(path, Volume(np.zeros((4, 5, 6), np.int16), np.diag([-0.7, -0.7, 3, 1])))
        >>> scan = read_volume(path)
        >>> scan.shape, scan.orientation, str(scan.dtype)
        ((4, 5, 6), 'LPS', 'int16')
    """
    return open_volume(path, geometry=geometry, **dicom).read()


def open_volume(path: str | Path, *, geometry: str = "auto", **dicom: Any) -> StoredVolume:
    """A scan or a label map of which the header alone is read: its grid, type and size.

    The voxels of a 3-D NIfTI file can be streamed, `open_volume(path).slabs(16)`, so that only
    some slices are in memory; other files are read whole.

    Args:
        path: As in `read_volume`.
        geometry: As in `read_volume`.
        **dicom: As in `read_volume`.

    Raises:
        FileFormatError: As `read_volume`, as far as the header shows it.
        GeometryError: Likewise.

    Example:
        >>> import numpy as np, tempfile
        >>> from leanseg.volumes import Volume, open_volume, write_volume
        >>> path = f"{tempfile.mkdtemp()}/ct.nii.gz"
        >>> write_volume(path, Volume(np.ones((4, 5, 6), np.int16), np.eye(4)))
        >>> [slab.shape for slab in open_volume(path).slabs(4)]
        [(4, 5, 4), (4, 5, 2)]
    """
    check_geometry(geometry)
    given, path = Path(path), unpacked(Path(path))
    stored = _open(path, given, geometry, dicom)
    # What came out of a zip file is named as it was asked for.
    return stored if given == path else replace(stored, path=given)


def _open(path: Path, given: Path, geometry: str, dicom: Mapping[str, Any]) -> StoredVolume:
    from leanseg.volumes.dicom import is_dicom

    suffix = volume_suffix(path)
    is_named_dicom = path.suffix.lower() == ".dcm" and path.is_file()
    if path.is_dir() or (suffix is None and (is_named_dicom or is_dicom(path))):
        from leanseg.volumes.dicom import open_series

        return open_series(given, **dicom)
    suffix = _known_suffix(path)
    _refuse_choice(path, dicom)
    _require_content(path)
    if suffix.startswith(".nii"):
        from leanseg.volumes.nifti import open_nifti

        return open_nifti(path, geometry)
    from leanseg.volumes.headed import open_headed

    return open_headed(path)


def _require_content(path: Path) -> None:
    try:
        with require_file(path).open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        why = "there is no such file" if is_missing else f"cannot be opened ({error.strerror})"
        raise FileFormatError(f"{path}: {why}; check the name") from error
    if is_empty:
        raise FileFormatError(f"{path}: the file is empty; copy or export it again")


def _refuse_choice(path: Path, dicom: Mapping[str, Any]) -> None:
    """A choice among DICOM series makes no sense for a file with one volume."""
    for name in ("series", "phase"):
        if dicom.get(name) is not None:
            msg = f"{path}: is not DICOM, so there is no {name} {dicom[name]!r} to choose; drop it"
            raise FileFormatError(msg)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write a volume; the suffix chooses the format, the file appears whole or not at all.

    Booleans are stored as uint8 and half floats as float32, which every format has. A NIfTI
    header of the volume is kept where it still says the volume's affine.

    Args:
        path: Ends in .nii.gz, .nii, .mha, .mhd or .nrrd.
        volume: Of integers, floats or booleans.

    Raises:
        FileFormatError: If the suffix is not of a volume.
        LeansegError: If the voxels are of another type, or the file cannot be written.

    Example:
        >>> import numpy as np, tempfile
        >>> from leanseg.volumes import Volume, write_volume
        >>> write_volume(f"{tempfile.mkdtemp()}/a.mha", Volume(np.zeros((4, 5, 6)), np.eye(4)))
    """
    array = volume.array
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32)
    elif array.dtype.kind not in "iuf":
        msg = f"{path}: voxels of type {array.dtype} cannot be stored; give integers or floats"
        raise LeansegError(msg)
    _write(Path(path), array, volume, compress=False)


def write_mask(path: str | Path, array: NDArray[Any], like: Volume) -> None:
    """Write a label map on the grid of a scan.

    Stored as uint8, or uint16 where a label is past 255. A NIfTI mask of a NIfTI scan keeps the
    scan's qform, sform, their codes, pixdim, units and byte order bit for bit.

    Args:
        path: The suffix chooses the format.
        array: Integers or booleans (i, j, k), of the scan's shape.
        like: The scan.

    Raises:
        FileFormatError: If the suffix is not of a volume.
        GeometryError: If the shape is not the scan's.
        LeansegError: If a value is no label (negative, past 65535, not an integer) or the file
            cannot be written.
    """
    path = Path(path)
    if array.shape != like.shape:
        msg = f"{path}: a mask of shape {array.shape} does not fit {like.path or 'the scan'} of "
        raise GeometryError(f"{msg}shape {like.shape}; bring it to the scan's grid first")
    _write(path, _as_labels(array, path), like, compress=True)


def _as_labels(array: NDArray[Any], path: Path) -> NDArray[Any]:
    if array.dtype == np.uint8:
        return array
    lowest, highest = array.min(), array.max()
    if array.dtype.kind not in "biu" or lowest < 0 or highest > 65535:
        msg = f"{path}: voxels of type {array.dtype} from {lowest} to {highest} are no labels; "
        raise LeansegError(f"{msg}give integers from 0 to 65535")
    return array.astype(label_dtype(int(highest)))


def _write(path: Path, array: NDArray[Any], like: Volume, *, compress: bool) -> None:
    if _known_suffix(path).startswith(".nii"):
        from leanseg.volumes.nifti import write_nifti

        write_nifti(path, array, like.affine, like.header)
    else:
        from leanseg.volumes.itk import write_itk

        write_itk(path, array, like.affine, compress=compress)
