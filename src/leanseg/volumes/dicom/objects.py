"""Opening DICOM files that are no scans: segmentations and structure sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leanseg.volumes.archive import unpacked
from leanseg.volumes.dicom.files import (
    ImageFile,
    MisplacedError,
    UnreadableError,
    is_dicom,
    read_header,
)
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
        UnreadableError: If there is no such file, or several, or it is cut short.
        FileFormatError: As `find_series`.
        MissingDependencyError: If pydicom is not installed.
    """
    from pydicom import dcmread
    from pydicom.dataelem import RawDataElement

    found = find_series(path).series
    files = [file for series in found if series.kind == kind for file in series.files]
    if len(files) != 1:
        names = ", ".join(series.name for series in found) or "damaged files"
        msg = f"expected one DICOM file of {kind}, found {len(files)} among {names}"
        raise UnreadableError(msg, "name the file")
    try:
        file = read_header(unpacked(files[0]), path)
        header = dcmread(unpacked(files[0]), force=True, stop_before_pixels=True)
        # An element that promises more bytes than there are is the last of a cut file.
        stored = [e for e in header.elements() if isinstance(e, RawDataElement)]
        is_cut = any(len(e.value or b"") < e.length != _UNDEFINED for e in stored)
    except Exception as error:  # a parser of damaged bytes may fail in any way
        raise UnreadableError("the file is damaged") from error
    if file is None or is_cut:
        raise UnreadableError("the file is cut short")
    return replace(file, header=header)


def chosen(
    present: Mapping[str, int], wanted: Mapping[str, int] | int
) -> tuple[dict[int, int], dict[str, int]]:
    """Which of the structures of a file are asked for, and as which label value.

    Args:
        present: Name to number in the file.
        wanted: Name to label value; case and surrounding blanks do not matter, and what this
            file does not have is passed over. A number takes all, as one label.

    Returns:
        Number in the file to label value, and the names of these values.

    Raises:
        UnreadableError: If the file has none of them.
    """
    wanted = dict.fromkeys(present, wanted) if isinstance(wanted, int) else wanted
    numbers = {name.strip().casefold(): number for name, number in present.items()}
    kept = {name: v for name, v in wanted.items() if name.strip().casefold() in numbers}
    if not kept:
        msg = f"has none of {', '.join(wanted)}; it has {', '.join(present) or 'nothing'}"
        raise UnreadableError(msg, "correct the names")
    return {numbers[name.strip().casefold()]: value for name, value in kept.items()}, kept


def require_frame_of(scan: Volume | None, uid: str) -> None:
    """Check that labels lie in the patient coordinates of a scan that is DICOM too.

    Raises:
        MisplacedError: If their FrameOfReferenceUID is not that of a scan where it lies.
    """
    if scan is None or scan.path is None or is_volume_path(scan.path) or not is_dicom(scan.path):
        return
    stacks = [stack for series in find_series(scan.path).series for stack in series.stacks]
    headers = [stack.frames[0].file.header for stack in stacks if isinstance(stack, Stack)]
    known = {text(header, "FrameOfReferenceUID") for header in headers} - {""}
    if uid and known and uid not in known:
        msg = f"its FrameOfReferenceUID is not that of {scan.path}, so its places are in other "
        raise MisplacedError(f"{msg}coordinates")


def numbers_by_name(described: Iterable[Dataset], kind: str, name: str) -> dict[str, int]:
    """Name to number of what a sequence describes, in ascending order of the numbers.

    Names that occur twice get their number appended.

    Args:
        described: The items of the sequence.
        kind: Keyword of the numbers.
        name: Keyword of the names.

    Raises:
        UnreadableError: If a number is missing or there twice.
    """
    found: dict[int, str] = {}
    for one in described:
        number = integer(one, kind)
        if number is None or number in found:
            what = "no number" if number is None else f"the value {number} twice"
            raise UnreadableError(f"has {what} as {kind}")
        # No valid name is longer, and what is damaged may be.
        found[number] = text(one, name)[:64]
    count = Counter(found.values())
    return {
        name if name and count[name] == 1 else f"{name or 'segment'} ({number})": number
        for number, name in sorted(found.items())
    }
