"""Pixel data to stored values: raw frames as they lie, compressed ones through pydicom.

Nothing is allocated before the lengths in the file have been checked against what the header
promises.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, MissingDependencyError
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.jpeg import declared_size, is_sound_jpeg
from leanseg.volumes.dicom.values import integer, text

_NATIVE = frozenset(("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"))
_END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0"
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


def pixel_fault(file: ImageFile) -> str | None:
    """What is wrong with the pixel data, as far as lengths tell; None where nothing is."""
    if not file.has_pixels:
        return "has no pixel data"
    columns, rows = file.size
    if columns < 1 or rows < 1:
        return f"its size of {columns} x {rows} pixels is not one of an image"
    bits, used = (integer(file.header, name) for name in ("BitsAllocated", "BitsStored"))
    if bits not in (8, 16, 32):
        return f"stores {bits} bits per pixel, expected 8, 16 or 32"
    if used is not None and not 0 < used <= bits:
        return f"says that {used} of {bits} bits per pixel are used"
    if file.n_frames < 1:
        return f"says that it has {file.n_frames} frames"
    if file.length is None:
        return None if _ends_within_file(file) else "its pixel data are cut short"
    have = min(file.n_bytes - file.offset, file.length)
    expected = _frame_bytes(file) * file.n_frames
    if have < expected:
        return f"has {have} of {expected} bytes of pixel data (cut short, or a wrong header)"
    return None


def _frame_bytes(file: ImageFile) -> int:
    columns, rows = file.size
    return columns * rows * file.stored_type.itemsize


def _ends_within_file(file: ImageFile) -> bool:
    """Whether encapsulated pixel data have a fragment, and end where they say."""
    from pydicom.encaps import parse_fragments

    with file.path.open("rb") as content:
        content.seek(file.offset)
        try:
            count, starts = parse_fragments(content)
        except ValueError:
            return False
        if count < 2:  # the first is the offset table
            return False
        content.seek(starts[-1] + 4)
        (length,) = struct.unpack("<I", content.read(4))
        content.seek(length, 1)
        return content.read(4) == _END_OF_SEQUENCE


def compressed_bytes(frame: Frame) -> bytes:
    """The codestream of a frame of encapsulated pixel data.

    Raises:
        FileFormatError: If there is none, or it cannot be as large as the header promises.
    """
    from pydicom.encaps import generate_fragments, get_frame

    file = frame.file
    with file.path.open("rb") as content:
        content.seek(file.offset)
        try:
            if file.n_frames == 1:
                _, *fragments = generate_fragments(content)
                found = b"".join(fragments)
            else:
                found = get_frame(content, frame.index, number_of_frames=file.n_frames)
        except Exception as error:  # of damaged tables pydicom says so in many ways
            msg = f"{file.shown}: its fragments are not those of {file.n_frames} frames"
            raise FileFormatError(f"{msg}; export it again") from error
    if _frame_bytes(file) > max(_HARMLESS_BYTES, _LARGEST_COMPRESSION * len(found)):
        columns, rows = file.size
        msg = f"{file.shown}: {len(found)} compressed bytes cannot hold {columns} x {rows} pixels"
        raise FileFormatError(f"{msg}; export it again")
    return found


def stored_bytes(frame: Frame) -> bytes:
    """The pixel data of one frame as they lie in the file, to compare two of them."""
    return compressed_bytes(frame) if frame.file.length is None else _raw(frame).tobytes()


def stored_values(frame: Frame) -> NDArray[Any]:
    """The stored values of a frame, (rows, columns), in native byte order.

    Raises:
        FileFormatError: If the pixel data cannot be decoded.
        MissingDependencyError: If no installed package reads the transfer syntax.
    """
    file = frame.file
    if file.length is None:
        return _decoded(compressed_bytes(frame), file)
    if file.syntax not in _NATIVE:
        raise FileFormatError(
            f"{file.shown}: says that it is stored as {syntax_name(file.syntax)}, but its pixel "
            "data are not; export it again"
        )
    return _used_bits(_raw(frame).reshape(file.size[::-1]), file)


def _raw(frame: Frame) -> NDArray[Any]:
    file = frame.file
    start = file.offset + frame.index * _frame_bytes(file)
    columns, rows = file.size
    return np.fromfile(file.path, file.stored_type, columns * rows, offset=start)


def _used_bits(values: NDArray[Any], file: ImageFile) -> NDArray[Any]:
    """The values without what older devices keep in the unused bits, in native byte order."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    n_bits, used = 8 * values.dtype.itemsize, file.used_bits
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

    name = syntax_name(file.syntax)
    columns, rows = file.size
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
    plugins = decoder.available_plugins
    description: Any = {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "photometric_interpretation": text(file.header, "PhotometricInterpretation"),
        "bits_allocated": 8 * file.stored_type.itemsize,
        "bits_stored": file.used_bits,
        "pixel_representation": int(file.stored_type.kind == "i"),
        "pixel_keyword": "PixelData",
        "decoding_plugin": next((p for p in _PREFERRED.get(file.syntax, ()) if p in plugins), ""),
    }
    try:
        values, _ = decoder.as_array(
            encapsulate([codestream], has_bot=False), index=0, **description
        )
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
    columns, rows = file.size
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
