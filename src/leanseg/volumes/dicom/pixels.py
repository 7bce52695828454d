"""Pixel data to stored values: raw frames as they lie, compressed ones through pydicom.

Nothing is allocated before the lengths in the file have been checked against what the header
promises.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, MissingDependencyError
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.jpeg import declared_size, is_sound_jpeg
from leanseg.volumes.dicom.values import integer, items, text

_NATIVE = frozenset(("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"))
_RLE = "1.2.840.10008.1.2.5"
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
    _RLE: ("pylibjpeg", "pydicom"),
}


def syntax_name(uid: str) -> str:
    """The transfer syntax by name, such as "JPEG 2000 Image Compression (Lossless Only)"."""
    from pydicom.uid import UID

    return UID(uid).name if uid else "none given"


def pixel_fault(file: ImageFile, *, of_labels: bool = False) -> str | None:
    """What is wrong with the pixel data, as far as the header tells; None where nothing is.

    Args:
        file: The image.
        of_labels: Whether it is a mask, which may have one bit a pixel, and colours for its values.
    """
    bits = integer(file.header, "BitsAllocated")
    if (
        min(*file.size, file.n_frames) < 1
        or bits not in (8, 16, 32) + (1,) * of_labels
        or not 0 < file.used_bits <= bits
    ):
        return "its Rows, Columns, NumberOfFrames, BitsAllocated or BitsStored make no sense"
    fault = _value_fault(file, of_labels)
    if fault or file.length is None:
        return fault or _encapsulation_fault(file)
    have = min(file.n_bytes - file.offset, file.length)
    expected = -(-_frame_bits(file) * file.n_frames // 8)
    if have < expected:
        return f"has {have} of {expected} bytes of pixel data (cut short, or a wrong header)"
    # A byte may pad them, and zeros; image beyond the image means that its size is another.
    more, after = have - expected, file.offset + expected
    if more > 1 and (
        of_labels
        or more > _HARMLESS_BYTES
        or np.fromfile(file.path, np.uint8, more, offset=after).any()
    ):
        return f"has {have} bytes of pixel data where its header says {expected}"
    return None


def _value_fault(file: ImageFile, of_labels: bool) -> str | None:
    """The first attribute under which stored values do not mean what leanseg makes of them."""
    high = integer(file.header, "HighBit")
    top, n_bits = file.used_bits - 1, 8 * file.stored_type.itemsize
    grey = ("MONOCHROME1", "MONOCHROME2") + ("PALETTE COLOR",) * of_labels
    is_usual = {
        "HighBit": high in (None, top) or (file.length is not None and top < (high or 0) < n_bits),
        "PixelRepresentation": integer(file.header, "PixelRepresentation") in (0, 1),
        "PhotometricInterpretation": text(file.header, "PhotometricInterpretation") in grey,
        "PixelIntensityRelationship": text(file.header, "PixelIntensityRelationship") != "LOG",
        "ModalityLUTSequence": not items(file.header, "ModalityLUTSequence"),
    }
    odd = next((keyword for keyword, usual in is_usual.items() if not usual), None)
    if odd is None:
        return None
    value = "a table of values" if odd.endswith("Sequence") else text(file.header, odd)[:64]
    return f"its {odd} is {value or 'missing'}, so that its values are not those of a scan"


def _frame_bits(file: ImageFile) -> int:
    columns, rows = file.size
    return columns * rows * (integer(file.header, "BitsAllocated") or 0)


def _encapsulation_fault(file: ImageFile) -> str | None:
    """Whether encapsulated pixel data have their frames, and end where they say."""
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    cut = "its pixel data are cut short"
    with file.path.open("rb") as content:
        content.seek(file.offset)
        try:
            offsets = parse_basic_offsets(content)
            content.seek(file.offset)
            count, starts = parse_fragments(content)
        except (ValueError, EOFError, struct.error):
            return cut
        if count < 2:  # the first is the offset table
            return cut
        content.seek(starts[-1] + 4)
        (length,) = struct.unpack("<I", content.read(4))
        content.seek(length, 1)
        if content.read(4) != _END_OF_SEQUENCE:
            return cut
    n_stored = len(offsets) or count - 1
    if n_stored < file.n_frames or (offsets and n_stored > file.n_frames):
        return f"its NumberOfFrames is {file.n_frames}, but {n_stored} are stored"
    return None


def compressed_bytes(frame: Frame) -> bytes:
    """The codestream of a frame of encapsulated pixel data.

    Raises:
        FileFormatError: If there is none, or it cannot be as large as the header promises.
    """
    from pydicom.encaps import get_frame

    file = frame.file
    with file.path.open("rb") as content:
        content.seek(file.offset)
        try:
            found = get_frame(content, frame.index, number_of_frames=file.n_frames)
        except Exception as error:  # of damaged tables pydicom says so in many ways
            raise _refused(file, "are not in as many parts as it has frames") from error
    if _frame_bits(file) // 8 > max(_HARMLESS_BYTES, _LARGEST_COMPRESSION * len(found)):
        raise _refused(file, f"are {len(found)} bytes, too few to hold them")
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
        raise _refused(file, "are not compressed")
    return _used_bits(_raw(frame).reshape(file.size[::-1]), file)


def _raw(frame: Frame) -> NDArray[Any]:
    file = frame.file
    n_bits, (columns, rows) = _frame_bits(file), file.size
    start, skipped = divmod(frame.index * n_bits, 8)
    if n_bits == columns * rows:  # one bit a pixel, and no frame need begin with a byte
        packed = np.fromfile(file.path, np.uint8, n_bits // 8 + 2, offset=file.offset + start)
        return np.unpackbits(packed, bitorder="little")[skipped : skipped + n_bits]
    return np.fromfile(file.path, file.stored_type, columns * rows, offset=file.offset + start)


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
    if values.min() >= lowest and values.max() <= highest:
        if shift and values.any():
            raise _refused(file, f"lie below HighBit {high}")
        return values
    return (values << (n_bits - used - shift)) >> (n_bits - used)


def _decoded(codestream: bytes, file: ImageFile) -> NDArray[Any]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    columns, rows = file.size
    missing = ["no package reads it"]
    with suppress(NotImplementedError):
        decoder = get_decoder(file.syntax)
        missing = [] if decoder.is_available else decoder.missing_dependencies
    if missing:
        msg = f"{file.shown}: is stored as {syntax_name(file.syntax)} ({'; '.join(missing)})"
        raise MissingDependencyError(f"{msg}; install a decoder, or decompress the file")
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
    if declared_size(codestream) != (None if file.syntax == _RLE else (columns, rows)):
        raise _refused(file, "say another size or colours")
    if not is_sound_jpeg(codestream, file.syntax):
        raise _refused(file, "are damaged")
    try:
        values, _ = decoder.as_array(
            encapsulate([codestream], has_bot=False), index=0, **description
        )
    except BaseException as error:  # decoders may fail in any way, one in Rust even by panic
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise _refused(file, "cannot be decoded") from error
    if values.shape != (rows, columns):
        raise _refused(file, "decode to another size or colours")
    return np.asarray(values)


def _refused(file: ImageFile, why: str) -> FileFormatError:
    columns, rows = file.size
    return FileFormatError(
        f"{file.shown}: should hold {columns} x {rows} grey values as {syntax_name(file.syntax)}, "
        f"but its pixel data {why}; copy or export it again"
    )
