"""Pixel data to stored values: raw frames without a copy, compressed ones through pydicom.

Nothing is allocated before the lengths in the file have been checked against what the header
promises.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, MissingDependencyError
from leanseg.volumes.dicom.codestreams import (
    codestreams,
    declared_size,
    fragments,
    is_sound_jpeg,
)
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame, n_frames
from leanseg.volumes.dicom.geometry import size_of
from leanseg.volumes.dicom.values import integer, text

NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"))
# What a slice of nothing but air may be compressed to; a codestream that promises more bytes
# than this many times its own is made to fill memory, unless the frame is small anyway.
_LARGEST_COMPRESSION = 1000
_HARMLESS_BYTES = 1 << 24
# Which plugin decodes a syntax, best first. GDCM is fast, but some damaged JPEG 2000 data make it
# end the whole process; pylibjpeg decodes run lengths ten times faster than pydicom alone.
_PREFERRED = {
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "gdcm"),
    "1.2.840.10008.1.2.4.81": ("pyjpegls", "gdcm"),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "pillow", "gdcm"),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "pillow", "gdcm"),
    "1.2.840.10008.1.2.5": ("pylibjpeg", "pydicom"),
}
# With 12 bits per pixel the decoders of the extra cannot read it.
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_PACKAGES = {
    "JPEG Extended": "pylibjpeg-libjpeg",
    "JPEG 2000": "pylibjpeg-openjpeg",
    "High-Throughput JPEG 2000": "pylibjpeg-openjpeg",
    "JPEG-LS": "python-gdcm",
    "RLE": "pylibjpeg-rle",
    "JPEG": "python-gdcm",
}


def syntax_name(uid: str) -> str:
    """The transfer syntax by name, such as "JPEG 2000 Image Compression (Lossless Only)"."""
    from pydicom.uid import UID

    return UID(uid).name if uid else "none given"


def stored_type(file: ImageFile) -> np.dtype[Any] | None:
    """The type of the stored values, None where it is none that a scan has."""
    bits = integer(file.header, "BitsAllocated")
    if bits not in (8, 16, 32):
        return None
    kind = "i" if integer(file.header, "PixelRepresentation") == 1 else "u"
    return np.dtype(f"{'<' if file.little_endian else '>'}{kind}{bits // 8}")


def pixel_fault(file: ImageFile) -> str | None:
    """What is wrong with the pixel data, as far as lengths tell; None where nothing is."""
    header = file.header
    if not file.has_pixels:
        return "has no pixel data"
    columns, rows = size_of(file)
    dtype = stored_type(file)
    if columns < 1 or rows < 1:
        return f"its size of {columns} x {rows} pixels is not one of an image"
    if dtype is None:
        return f"stores {integer(header, 'BitsAllocated')} bits per pixel, expected 8, 16 or 32"
    stored = integer(header, "BitsStored")
    if stored is not None and not 0 < stored <= 8 * dtype.itemsize:
        return f"says that {stored} of {8 * dtype.itemsize} bits per pixel are used"
    if n_frames(file) < 1:
        return f"says that it has {n_frames(file)} frames"
    available = file.size - file.offset
    if file.length is None:
        with _mapped(file.path) as content:
            return None if fragments(content, file.offset) else "its pixel data are cut short"
    expected = columns * rows * dtype.itemsize * n_frames(file)
    if min(available, file.length) < expected:
        have = min(available, file.length)
        return f"has {have} of {expected} bytes of pixel data (cut short, or a wrong header)"
    return None


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def check_codestreams(file: ImageFile) -> None:
    """Check, before room is made for them, that compressed frames can be as large as promised.

    Raises:
        FileFormatError: If they cannot.
    """
    if file.length is not None:
        return
    with _mapped(file.path) as content:
        shortest = min(map(len, codestreams(content, file)))
    columns, rows = size_of(file)
    dtype = stored_type(file)
    assert dtype is not None  # see pixel_fault
    if columns * rows * dtype.itemsize > max(_HARMLESS_BYTES, _LARGEST_COMPRESSION * shortest):
        msg = (
            f"{file.shown}: {shortest} compressed bytes cannot hold {columns} x {rows} pixels; "
            "export it again"
        )
        raise FileFormatError(msg)


def stored_bytes(frame: Frame) -> bytes:
    """The pixel data of one frame as they lie in the file, to compare two of them."""
    file = frame.file
    with _mapped(file.path) as content:
        if file.length is None:
            return codestreams(content, file)[frame.index]
        start, length = _extent(file, frame.index)
        return content[start : start + length]


def _extent(file: ImageFile, index: int) -> tuple[int, int]:
    columns, rows = size_of(file)
    dtype = stored_type(file)
    assert dtype is not None  # see pixel_fault
    length = columns * rows * dtype.itemsize
    return file.offset + index * length, length


@contextmanager
def stored_frames(file: ImageFile) -> Iterator[Any]:
    """Gives a function from the index of a frame to its stored values, (rows, columns).

    Raises:
        FileFormatError: If the pixel data cannot be decoded.
        MissingDependencyError: If no installed package reads the transfer syntax.
    """
    with _mapped(file.path) as content:
        if file.length is not None:
            yield lambda index: _native(content, file, index)
        else:
            streams = codestreams(content, file)
            yield lambda index: _decoded(streams[index], file)


def _native(content: mmap.mmap, file: ImageFile, index: int) -> NDArray[Any]:
    if file.syntax and file.syntax not in NATIVE:
        raise FileFormatError(
            f"{file.shown}: says that it is stored as {syntax_name(file.syntax)}, but its pixel "
            "data are not; export it again"
        )
    start, length = _extent(file, index)
    columns, rows = size_of(file)
    values = np.frombuffer(content[start : start + length], stored_type(file))
    return _used_bits(values.reshape(rows, columns), file)


def _used_bits(values: NDArray[Any], file: ImageFile) -> NDArray[Any]:
    """The values without what older devices keep in the unused bits, in native byte order."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    n_bits = 8 * values.dtype.itemsize
    used = integer(file.header, "BitsStored") or n_bits
    high = integer(file.header, "HighBit")
    shift = 0 if high is None or not used - 1 <= high < n_bits else high - used + 1
    if used == n_bits:
        return values
    signed = values.dtype.kind == "i"
    lowest, highest = (-(1 << used - 1), (1 << used - 1) - 1) if signed else (0, (1 << used) - 1)
    if shift == 0 and values.min() >= lowest and values.max() <= highest:
        return values
    return (values << (n_bits - used - shift)) >> (n_bits - used)


def _decoded(codestream: bytes, file: ImageFile) -> NDArray[Any]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    columns, rows = size_of(file)
    dtype = stored_type(file)
    assert dtype is not None  # see pixel_fault
    name = syntax_name(file.syntax)
    if declared_size(codestream) not in (None, (columns, rows)):
        raise _other_size(file)
    try:
        decoder = get_decoder(file.syntax)
    except NotImplementedError as error:
        raise _unsupported(file, name) from error
    if not decoder.is_available:
        raise _unsupported(file, name)
    if not is_sound_jpeg(codestream, file.syntax):
        raise _damaged(file, name)
    description: Any = {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "photometric_interpretation": text(file.header, "PhotometricInterpretation"),
        "bits_allocated": 8 * dtype.itemsize,
        "bits_stored": integer(file.header, "BitsStored") or 8 * dtype.itemsize,
        "pixel_representation": int(dtype.kind == "i"),
        "pixel_keyword": "PixelData",
    }
    try:
        encapsulated = encapsulate([codestream], has_bot=False)
        plugins = decoder.available_plugins
        plugin = next((name for name in _PREFERRED.get(file.syntax, ()) if name in plugins), "")
        description["decoding_plugin"] = plugin
        values, _ = decoder.as_array(encapsulated, index=0, **description)
    except BaseException as error:  # decoders may fail in any way, one in Rust even by panic
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        if file.syntax == _JPEG_EXTENDED and "12-bit" in str(error):
            raise _unsupported(file, name) from error
        raise _damaged(file, name) from error
    if values.shape != (rows, columns):
        raise _other_size(file)
    return np.asarray(values)


def _damaged(file: ImageFile, name: str) -> FileFormatError:
    return FileFormatError(
        f"{file.shown}: its pixel data ({name}) cannot be decoded; copy or export it again"
    )


def _other_size(file: ImageFile) -> FileFormatError:
    columns, rows = size_of(file)
    return FileFormatError(
        f"{file.shown}: its compressed pixel data are not one image of {columns} x {rows} grey "
        "values, as its header says; export it again"
    )


def _unsupported(file: ImageFile, name: str) -> MissingDependencyError:
    package = next((p for kind, p in _PACKAGES.items() if name.startswith(kind)), None)
    way = (
        f"install {package} (pip install {package})"
        if package
        else "no package reads it; convert it to Explicit VR Little Endian"
    )
    return MissingDependencyError(f"{file.shown}: is stored as {name}; {way}")
