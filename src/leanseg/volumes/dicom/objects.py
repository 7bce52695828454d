"""Opening DICOM files that are no scans: segmentations and structure sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes.archive import unpacked
from leanseg.volumes.dicom.files import ImageFile, is_dicom, read_header
from leanseg.volumes.dicom.geometry import Stack
from leanseg.volumes.dicom.inventory import find_series
from leanseg.volumes.dicom.values import integer, text
from leanseg.volumes.io import is_volume_path
from leanseg.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

_UNDEFINED = 0xFFFFFFFF


def open_object(path: Path, kind: str) -> ImageFile:
    """Read the one file of a kind: all of it but the pixel data.

    Args:
        path: The file, a place in a zip file, or a folder or zip file that holds one such file.
        kind: As `Series.kind`, such as "segmentation".

    Raises:
        FileFormatError: If there is no such file, or several, or it is cut short.
        MissingDependencyError: If pydicom is not installed.
    """
    from pydicom import dcmread
    from pydicom.dataelem import RawDataElement

    found = find_series(path).series
    files = [file for series in found if series.kind == kind for file in series.files]
    if len(files) != 1:
        names = ", ".join(series.name for series in found) or "damaged files"
        msg = f"{path}: expected one DICOM file of {kind}, found {len(files)} among {names}"
        raise FileFormatError(f"{msg}; name the file")
    try:
        file = read_header(unpacked(files[0]), path)
        header = dcmread(unpacked(files[0]), force=True, stop_before_pixels=True)
        # An element that promises more bytes than there are is the last of a cut file.
        stored = [e for e in header.elements() if isinstance(e, RawDataElement)]
        is_cut = any(len(e.value or b"") < e.length != _UNDEFINED for e in stored)
    except Exception as error:  # a parser of damaged bytes may fail in any way
        raise FileFormatError(f"{path}: the file is damaged; copy or export it again") from error
    if file is None or is_cut:
        raise FileFormatError(f"{path}: the file is cut short; copy or export it again")
    return replace(file, header=header)


def chosen(
    path: Path, present: Mapping[str, int], wanted: Mapping[str, int] | int
) -> tuple[dict[int, int], dict[str, int]]:
    """Which of the structures of a file are asked for, and as which label value.

    Args:
        path: For messages.
        present: Name to number in the file.
        wanted: Name to label value; case and surrounding blanks do not matter, and what this
            file does not have is passed over. A number takes all, as one label.

    Returns:
        Number in the file to label value, and the names of these values.

    Raises:
        LeansegError: If the file has none of them.
    """
    wanted = dict.fromkeys(present, wanted) if isinstance(wanted, int) else wanted
    numbers = {name.strip().casefold(): number for name, number in present.items()}
    kept = {name: v for name, v in wanted.items() if name.strip().casefold() in numbers}
    if not kept:
        msg = f"{path}: has none of {', '.join(wanted)}; it has {', '.join(present) or 'nothing'}"
        raise LeansegError(f"{msg}; correct the names")
    return {numbers[name.strip().casefold()]: value for name, value in kept.items()}, kept


def require_frame_of(scan: Volume | None, path: Path, uid: str) -> None:
    """Check that labels lie in the patient coordinates of a scan that is DICOM too.

    Raises:
        GeometryError: If their FrameOfReferenceUID is not that of a scan where it lies.
    """
    if scan is None or scan.path is None or is_volume_path(scan.path) or not is_dicom(scan.path):
        return
    stacks = [stack for series in find_series(scan.path).series for stack in series.stacks]
    headers = [stack.frames[0].file.header for stack in stacks if isinstance(stack, Stack)]
    known = {text(header, "FrameOfReferenceUID") for header in headers} - {""}
    if uid and known and uid not in known:
        msg = f"{path}: its FrameOfReferenceUID is not that of {scan.path}, so its places are in "
        raise GeometryError(f"{msg}other coordinates; give the scan it was made on")


def numbered(path: Path, described: Iterable[Dataset], kind: str, name: str) -> dict[int, str]:
    """Number to name of what a sequence describes.

    Args:
        path: For messages.
        described: Its items.
        kind: Keyword of the numbers.
        name: Keyword of the names.

    Raises:
        FileFormatError: If a number is missing or there twice.
    """
    found: dict[int, str] = {}
    for one in described:
        number = integer(one, kind)
        if number is None or number in found:
            what = "no number" if number is None else f"the value {number} twice"
            raise FileFormatError(f"{path}: has {what} as {kind}; export it again")
        found[number] = text(one, name)
    return found


def unique_names(named: Mapping[int, str]) -> dict[str, int]:
    """Name to number; names that occur twice get their number appended."""
    # No valid name is longer, and what is damaged may be.
    named = {number: name[:64] for number, name in named.items()}
    texts = list(named.values())
    return {
        name if name and texts.count(name) == 1 else f"{name or 'segment'} ({number})": number
        for number, name in named.items()
    }
