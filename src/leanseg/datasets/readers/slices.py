"""Label maps that lie as a folder of slices: PNG pictures, or DICOM masks, one file a slice.

The files have no place in the world of their own; they belong to the slices of a scan. Of a DICOM
scan, a mask belongs to the file of the same name (without suffix) where all names agree; otherwise
the n-th mask to the n-th file, both in natural order of their names. Of a scan in one file, the
n-th mask lies in the n-th slice along the third axis.

Options:
    values: `{"1": [55, 70]}`, label to lowest and highest grey value, both included; grey values
        in none of the ranges become background. Without it grey values are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError, FileFormatError, GeometryError, LeansegError
from leanseg.volumes import is_volume_path
from leanseg.volumes.archive import unpacked
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from leanseg.volumes.dicom import Series


def read(source: VolumeSource, scan: Volume | None) -> Volume:
    """The slices in the folder `source.path` on the grid of the scan.

    Returns:
        Voxels (i, j, k): column, row and slice, uint8 or uint16.

    Raises:
        DatasetError: If there is no scan, no slice, or ranges of grey values overlap.
        GeometryError: If number or size of the slices are not the scan's.
        FileFormatError: If a slice cannot be read.
    """
    if scan is None or scan.path is None:
        msg = f"{source.path}: slices have no grid of their own; give the scan that they belong to"
        raise DatasetError(msg)
    files = slice_files(unpacked(source.path))
    if not files:
        msg = f"{source.path}: no slices here; expected .png files, or DICOM files, of one mask"
        raise DatasetError(msg)
    require_alike(source.path, f"{len(files)} slices", scan.path, f"{scan.shape[2]} slices")
    if not is_volume_path(scan.path):
        scan_files = series_of(source.path, scan.path).files
        require_alike(source.path, f"{len(files)} slices", scan.path, f"{len(scan_files)} slices")
        files = paired(files, scan_files)
    array = np.empty((*scan.shape[:2], len(files)), dtype=np.uint16, order="F")
    for k, file in enumerate(files):
        pixels, size = read_slice(file).T, "{} x {} pixels"
        require_alike(file, size.format(*pixels.shape), scan.path, size.format(*scan.shape))
        array[:, :, k] = pixels
    labels = _as_labels(source.path, array, source.options.get("values"))
    return Volume(labels, scan.affine, source.path, scan.header)


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which image_2 comes before image_10."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in parts]


def slice_files(folder: Path) -> list[Path]:
    """The slices in a folder in natural order: its .png files, else every file there.

    Raises:
        DatasetError: If there is no such folder.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of slices, one file each; check the path")
    files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    pictures = [file for file in files if file.suffix.lower() == ".png"]
    return sorted(pictures or files, key=natural_order)


def series_of(masks: Path, scan: Path) -> Series:
    """The DICOM series of a scan, to whose files or slices the masks belong.

    Raises:
        GeometryError: If its slices are tilted: the scan is resampled to an upright grid then, and
            no slice of it is a file any more.
        FileFormatError: If there is no such series.
    """
    from leanseg.volumes.dicom import choose_series, find_series

    series = choose_series(find_series(scan))
    if series.tilt_degrees:
        raise GeometryError(
            f"{masks}: belongs to the slices of {scan}, whose gantry is tilted by "
            f"{series.tilt_degrees:.1f} degrees; give the mask as a volume with its own geometry"
        )
    return series


def paired(files: Sequence[Path], scan_files: Sequence[Path]) -> list[Path]:
    """The mask files in the order of the scan's files, as many of each.

    By name where every name agrees, which holds whatever the instance numbers say; by natural
    order of names where the two are named in different ways.
    """
    by_stem: Mapping[str, Path] = {file.stem: file for file in files}
    if len(by_stem) == len(files) and all(file.stem in by_stem for file in scan_files):
        return [by_stem[file.stem] for file in scan_files]
    by_name = {file.name: file for file in files}
    if all(file.name in by_name for file in scan_files):
        return [by_name[file.name] for file in scan_files]
    rank = {file: n for n, file in enumerate(sorted(scan_files, key=natural_order))}
    return [files[rank[file]] for file in scan_files]


def read_slice(file: Path) -> NDArray[np.uint16]:
    """The grey values of a slice (rows, columns): PNG by its suffix, anything else as DICOM.

    In PNG one bit becomes 0 and 255, palettes give their indices, colours must be greys; DICOM
    is rescaled as it says.

    Raises:
        FileFormatError: If the file is damaged, coloured, or holds other than 8 or 16 bits.
    """
    try:
        pixels = (_png if file.suffix.lower() == ".png" else _dicom)(file)
    except LeansegError:
        raise
    except Exception as error:
        # Decoders raise whatever they like at a damaged file, and may quote its header.
        msg = f"{file}: cannot be read as a slice ({type(error).__name__}); copy or export it again"
        raise FileFormatError(msg) from None
    whole = pixels.astype(np.uint16)
    if pixels.ndim != 2 or (pixels != whole).any():
        msg = f"{file}: is no label map slice with grey values 0 to 65535; export it again"
        raise FileFormatError(msg)
    return whole


def _png(file: Path) -> NDArray[Any]:
    from PIL import Image

    with Image.open(file, formats=("PNG",)) as picture:
        if picture.mode == "1":
            return np.asarray(picture.convert("L"))
        if picture.mode in ("L", "P", "I", "I;16", "I;16B"):
            return np.asarray(picture)
        colours = np.asarray(picture.convert("RGB"))
    if (colours != colours[..., :1]).any():
        msg = f"{file}: is coloured; save the mask in grey values or with a palette"
        raise FileFormatError(msg)
    return colours[..., 0]


def _dicom(file: Path) -> NDArray[Any]:
    from leanseg.volumes.dicom.voxels import grey_values

    return grey_values(file)


def _as_labels(
    path: Path, array: NDArray[np.uint16], values: Mapping[str, Sequence[int]] | None
) -> NDArray[Any]:
    if values is None:
        return array if array.max() > np.iinfo(np.uint8).max else array.astype(np.uint8)
    table = np.zeros(int(array.max()) + 1, dtype=np.uint16)
    seen = np.zeros(len(table), dtype=bool)
    for label, (low, high) in values.items():
        if seen[low : high + 1].any():
            msg = f"{path}: grey values {low} to {high} belong to two labels; correct the ranges"
            raise DatasetError(msg)
        seen[low : high + 1] = True
        table[low : high + 1] = int(label)
    return (table if table.max() > np.iinfo(np.uint8).max else table.astype(np.uint8))[array]


def require_alike(path: Path, found: str, scan: Path, expected: str) -> None:
    """Check that a label has what its scan has, both told in words such as "4 slices".

    Raises:
        GeometryError: If it has something else.
    """
    if found != expected:
        raise GeometryError(
            f"{path}: has {found}, but its scan {scan} has {expected}; complete it, or check that "
            "they belong together"
        )
