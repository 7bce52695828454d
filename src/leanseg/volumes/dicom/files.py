"""DICOM files: found in folders of any depth and name, their headers read, nothing believed.

Pixel data are only located here. A file that cannot be read gives a reason instead of a header.
"""

from __future__ import annotations

import mmap
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.errors import FileFormatError, GeometryError, LeansegError, MissingDependencyError
from leanseg.files import require_file
from leanseg.volumes.archive import unpacked
from leanseg.volumes.dicom.values import integer, table, text

# The elements that reading, and referring to what was read, needs. Their use is "study" for what
# label maps that are written for a scan take over from it, "always" if it may be empty but not
# missing, and "frame" for what stands in functional groups alone; "phase" is what users call what
# may tell the phases of a series apart, most telling first, and "inside" its name in the sequence
# of an enhanced file.
ELEMENTS = table("elements.csv")
# Nothing of it is ever shown; PatientID and PatientName also tell patients apart.
PATIENT_AND_STUDY = [one["keyword"] for one in ELEMENTS if one["use"].startswith("study")]
_MAGIC, _MAGIC_OFFSET = b"DICM", 128
# What lies beside scans in great numbers, and is not worth a look inside.
_OTHER_SUFFIXES = (".nii", ".gz", ".mha", ".mhd", ".nrrd", ".raw", ".png", ".jpg", ".json", ".txt")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# CT, MR and PET images: classic, enhanced, and legacy converted to enhanced.
_SCANS = frozenset(("2", "2.1", "2.2", "4", "4.1", "4.4", "128", "128.1", "130"))
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_UNDEFINED = 0xFFFFFFFF
_DEFLATED, _INDEX, _META_BYTES = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.3.10", 4096
_PIXEL_GROUP = 0x7FE0
_PIXELS = {0x0010: "PixelData", 0x0008: "FloatPixelData", 0x0009: "DoubleFloatPixelData"}


class UnreadableError(Exception):
    """What is wrong with a DICOM file, without its name or identifiers; `named` tells the user.

    Args:
        fault: To follow the name of the file.
        remedy: What to do, where it is not the usual.
    """

    kind: type[LeansegError] = FileFormatError
    usual = "copy or export it again"

    def __init__(self, fault: str, remedy: str = "") -> None:
        super().__init__(fault)
        self.remedy = remedy or self.usual


class MisplacedError(UnreadableError):
    """Why what a DICOM file holds does not lie on a scan."""

    kind, usual = GeometryError, "give the scan it was made on"


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Where a file is read or written: tell which one is meant by what is wrong.

    pydicom's warnings are kept quiet: they quote values, which may name the patient.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnreadableError as error:
            # From nothing: what a parser says of damaged bytes may quote them.
            raise error.kind(f"{path}: {error}; {error.remedy}") from None


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The header of one DICOM file.

    Attributes:
        path: Where it lies on disk.
        shown: Where it lies for the user, who may have given a zip file.
        header: A pydicom Dataset with the elements that reading needs.
        syntax: UID of the transfer syntax.
        little_endian: Byte order of the pixel data.
        offset: Where the value of the pixel data begins in the file; 0 without pixel data.
        length: Its bytes, or None where it is encapsulated.
        n_bytes: Size of the whole file.
    """

    path: Path
    shown: Path
    header: Any = field(repr=False)
    syntax: str
    little_endian: bool
    offset: int
    length: int | None
    n_bytes: int

    @cached_property
    def size(self) -> tuple[int, int]:
        """Columns and rows as declared, 0 where they are not."""
        return integer(self.header, "Columns") or 0, integer(self.header, "Rows") or 0

    @cached_property
    def n_frames(self) -> int:
        """How many frames the file says it has."""
        return integer(self.header, "NumberOfFrames") or 1

    @cached_property
    def stored_type(self) -> np.dtype[Any]:
        """The type of the stored values, as far as a scan can have it."""
        bits = integer(self.header, "BitsAllocated")
        kind = "i" if integer(self.header, "PixelRepresentation") == 1 else "u"
        n_bytes = max(bits // 8, 1) if bits in (1, 8, 16, 32) else 2
        return np.dtype(f"{'<' if self.little_endian else '>'}{kind}{n_bytes}")

    @cached_property
    def used_bits(self) -> int:
        """How many bits of a stored value are used."""
        stored = integer(self.header, "BitsStored")
        return 8 * self.stored_type.itemsize if stored is None else stored


@lru_cache(maxsize=1)
def _tags() -> list[Any]:
    from pydicom.tag import Tag

    return [Tag(one["keyword"]) for one in ELEMENTS if one["use"] != "frame"]


def require_package(name: str = "pydicom") -> None:
    """Check that a package of the extra is installed.

    Raises:
        MissingDependencyError: If not.
    """
    if find_spec(name) is None:
        msg = f'DICOM needs {name}; install it with: pip install "leanseg[dicom]"'
        raise MissingDependencyError(msg)


def candidates(folder: Path) -> Iterator[Path]:
    """The files below a folder that may be DICOM by their names, sorted, links not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            file = Path(root, name)
            # A pipe or socket would be waited for without end.
            if file.suffix.lower() not in _OTHER_SUFFIXES and file.is_file():
                yield file


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM, with or without the preamble."""
    if start[_MAGIC_OFFSET : _MAGIC_OFFSET + 4] == _MAGIC:
        return True
    if len(start) < 16:
        return False
    # Without the preamble a dataset starts at once, with group 2 (meta) or 8 (identification).
    for order in "<>":
        group, element, value_type, short = struct.unpack(f"{order}HH2sH", start[:8])
        (length,) = struct.unpack(f"{order}I", start[4:8])
        is_typed = value_type.isalpha() and value_type.isupper() and short < 256
        if group in (2, 8) and element <= 0x0100 and (is_typed or length < 256):
            return True
    return False


def folder_of_index(path: Path) -> Path:
    """The folder that a DICOMDIR lies in and lists the files of; any other path as it is."""
    place = unpacked(path)
    return path.parent if place.is_file() and _is_index(_start(place, _META_BYTES)) else path


def _is_index(start: bytes) -> bool:
    return looks_like_dicom(start) and _INDEX in start


def is_dicom(path: str | Path) -> bool:
    """Whether a file is DICOM, or a folder or zip file holds one: a look at first bytes only.

    Raises:
        FileFormatError: If a zip file cannot be unpacked safely.
    """
    place = unpacked(Path(path))
    if place.is_dir():
        return any(looks_like_dicom(_start(file)) for file in candidates(place))
    return place.is_file() and looks_like_dicom(_start(place))


def _start(path: Path, size: int = _MAGIC_OFFSET + 4) -> bytes:
    try:
        with require_file(path).open("rb", buffering=0) as file:
            return file.read(size)
    except OSError:
        return b""


def read_header(path: Path, shown: Path) -> ImageFile | None:
    """The header of a file.

    Returns:
        None if the file is no DICOM file, or an index of others (a DICOMDIR).

    Raises:
        UnreadableError: If it is one, or seems to be, but cannot be read.
    """
    try:
        with require_file(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_META_BYTES)
            if not looks_like_dicom(start):
                # Passed over in silence, unless its name says that it should be DICOM.
                if path.suffix.lower() not in _DICOM_SUFFIXES:
                    return None
                fault = "is not DICOM, whatever its name says" if size else "is empty"
                raise UnreadableError(fault)
            if _is_index(start):
                return None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                preamble = start[_MAGIC_OFFSET : _MAGIC_OFFSET + 4] == _MAGIC
                return _parse(path, shown, content, size, preamble)
    except OSError as error:
        raise UnreadableError(f"cannot be opened ({error.strerror})") from error


def _parse(
    path: Path, shown: Path, content: mmap.mmap, size: int, preamble: bool
) -> ImageFile | None:
    from pydicom import dcmread

    # Inflating it would take memory without a limit; scans are never stored so.
    if content.find(_DEFLATED, 0, _META_BYTES) >= 0:
        msg = "is stored as Deflated Explicit VR Little Endian (DCMTK's dcmconv +te converts it)"
        raise UnreadableError(msg)
    fault = "the header is damaged or cut short"
    try:
        source: Any = content
        header = dcmread(source, stop_before_pixels=True, force=True, specific_tags=_tags())
        implicit, little = header.original_encoding
        syntax = text(header.file_meta, "TransferSyntaxUID")
        place = content.tell()
        pixels, offset, length = _pixel_data(content, place, bool(implicit), bool(little))
        is_dicom = any(keyword in header for keyword in ("SOPClassUID", "Modality", "Rows"))
        fault = "has neither SOPClassUID nor Modality nor Rows (no image, or cut short)"
    except Exception:  # a parser of damaged bytes may fail in any way
        is_dicom = False
    if not is_dicom:
        if not preamble:
            return None
        raise UnreadableError(fault)
    if pixels != "PixelData" and _expects_pixels(header):
        instead = f"has {pixels} instead of PixelData, which leanseg does not read"
        missing = "has no pixel data (cut short, or exported without)"
        raise UnreadableError(instead if pixels else missing)
    offset = offset if pixels == "PixelData" else 0
    # In words the bytes of small values are exchanged pair by pair.
    words = not little and content[place + 4 : place + 6] == b"OW"
    bits, n_samples = integer(header, "BitsAllocated"), integer(header, "SamplesPerPixel")
    if words and bits in (1, 8) and n_samples == 1:
        msg = f"has BitsAllocated {bits} in big endian words (DCMTK's dcmconv +te converts it)"
        raise UnreadableError(msg)
    return ImageFile(path, shown, header, syntax, bool(little), offset, length, size)


def _expects_pixels(header: Any) -> bool:
    """Whether a file must have pixel data: of a scan's class, or of none but a scan's modality."""
    sop_class = text(header.file_meta, "MediaStorageSOPClassUID") or text(header, "SOPClassUID")
    if sop_class:
        return sop_class.removeprefix(_STORAGE) in _SCANS
    return text(header, "Modality").upper() in ("CT", "MR", "PT")


def _pixel_data(
    content: mmap.mmap, place: int, implicit: bool, little: bool
) -> tuple[str, int, int | None]:
    """Which pixel data the element at `place` is, where its value begins, and its length."""
    layout = struct.Struct(("<" if little else ">") + ("HHI" if implicit else "HH4xI"))
    start = content[place : place + layout.size].ljust(layout.size, b"\0")
    group, element, length = layout.unpack(start)
    name = _PIXELS.get(element, "") if group == _PIXEL_GROUP else ""
    is_known = implicit or length != _UNDEFINED
    return name, place + layout.size, length if is_known else None
