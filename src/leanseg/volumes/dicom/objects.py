"""Opening DICOM files that are no scans: segmentations and structure sets."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from leanseg.errors import FileFormatError, LeansegError
from leanseg.volumes.archive import unpacked
from leanseg.volumes.dicom.files import (
    UnreadableError,
    candidates,
    looks_like_dicom,
    read_header,
    require_package,
)
from leanseg.volumes.dicom.values import text

if TYPE_CHECKING:
    from pydicom import Dataset

_UNDEFINED = 0xFFFFFFFF


def open_object(path: Path, classes: Collection[str], what: str) -> Dataset:
    """Read a file that must be of one of some SOP classes.

    Args:
        path: The file, a place in a zip file, or a folder or zip file that holds one such file.
        classes: UIDs.
        what: How the user calls it, such as "a DICOM Segmentation".

    Raises:
        FileFormatError: If there is no such file, or it is something else, or cut short.
        MissingDependencyError: If pydicom is not installed.
    """
    require_package()
    place = unpacked(path)
    if not place.exists():
        raise FileFormatError(f"{path}: there is no such file; check the name")
    if place.is_dir():
        place = _only_one(path, place, classes, what)
    with place.open("rb") as file:
        if not looks_like_dicom(file.read(132)):
            raise FileFormatError(f"{path}: is not DICOM, or damaged; expected {what}")
    found = _read(path, place)
    kind = text(found, "SOPClassUID")
    if kind not in classes:
        from pydicom._uid_dict import UID_dictionary

        # What is no known UID may be anything, so it is not shown.
        name = UID_dictionary[kind][0] if kind in UID_dictionary else "something else"
        raise FileFormatError(f"{path}: holds {name}, expected {what}; give the right file")
    return found


def _only_one(path: Path, folder: Path, classes: Collection[str], what: str) -> Path:
    fitting = []
    for file in candidates(folder):
        try:
            found = read_header(file, file)
        except UnreadableError:  # and so not what is looked for
            continue
        if found is not None and text(found.header, "SOPClassUID") in classes:
            fitting.append(file)
    if len(fitting) != 1:
        names = ", ".join(sorted(file.name for file in fitting)[:5]) or "none"
        msg = f"{path}: expected one file that is {what}, found {names}; name the file"
        raise FileFormatError(msg)
    return fitting[0]


def _read(path: Path, place: Path) -> Dataset:
    from pydicom import dcmread
    from pydicom.dataelem import RawDataElement

    try:
        with warnings.catch_warnings():
            # pydicom's warnings quote values, which may name the patient.
            warnings.simplefilter("ignore")
            found = dcmread(place, force=True)
            # An element that promises more bytes than there are is the last of a cut file.
            stored = [e for e in found.elements() if isinstance(e, RawDataElement)]
            lengths = [(e.length, len(e.value or b"")) for e in stored]
    except Exception as error:  # a parser of damaged bytes may fail in any way
        raise cut_short(path) from error
    if any(there < promised != _UNDEFINED for promised, there in lengths):
        raise cut_short(path)
    return found


def cut_short(path: Path) -> FileFormatError:
    """What to say of a file that ends too early or whose parts do not fit."""
    return FileFormatError(f"{path}: the file is damaged or cut short; copy or export it again")


def chosen(path: Path, present: Mapping[str, int], wanted: Mapping[str, int]) -> dict[int, int]:
    """Which of the structures of a file are asked for, and as which label value.

    Args:
        path: For messages.
        present: Name to number in the file.
        wanted: Name to label value; case and surrounding blanks do not matter, and what this
            file does not have is passed over.

    Returns:
        Number in the file to label value.

    Raises:
        LeansegError: If the file has none of them.
    """
    values = {name.strip().casefold(): value for name, value in wanted.items()}
    found = {
        number: values[name.strip().casefold()]
        for name, number in present.items()
        if name.strip().casefold() in values
    }
    if not found:
        msg = f"{path}: has none of {', '.join(wanted)}; it has {', '.join(present) or 'nothing'}"
        raise LeansegError(f"{msg}; correct the names")
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
