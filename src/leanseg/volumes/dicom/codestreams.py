"""Encapsulated pixel data: the compressed frames of a file, and the size that each declares."""

from __future__ import annotations

import mmap
import struct

import numpy as np

from leanseg.errors import FileFormatError
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import n_frames

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_JPEG_2000 = b"\xff\x4f\xff\x51"
_JPEG = b"\xff\xd8\xff"
# Markers of JPEG that start a frame and so give its size: SOF0 to SOF15 but for DHT, JPG and
# DAC, and SOF55 of JPEG-LS.
_JPEG_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}


def fragments(content: mmap.mmap, offset: int) -> list[tuple[int, int]] | None:
    """Start and length of the items of encapsulated pixel data, offset table included.

    None where they do not end within the file.
    """
    found: list[tuple[int, int]] = []
    while True:
        start = content[offset : offset + 8]
        if start[:4] == _END:
            return found if len(found) > 1 else None
        if len(start) < 8 or start[:4] != _ITEM:
            return None
        length: int = struct.unpack("<I", start[4:])[0]
        if offset + 8 + length > len(content):
            return None
        found.append((offset + 8, length))
        offset += 8 + length


def codestreams(content: mmap.mmap, file: ImageFile) -> list[bytes]:
    """The compressed bytes of each frame."""
    found = fragments(content, file.offset) or []
    table, pieces = found[:1], found[1:]
    count = n_frames(file)
    if count == 1:
        return [b"".join(content[start : start + length] for start, length in pieces)]
    if len(pieces) == count:
        return [content[start : start + length] for start, length in pieces]
    offsets = content[table[0][0] : table[0][0] + table[0][1]]
    starts = np.frombuffer(offsets[: len(offsets) // 4 * 4], "<u4").tolist()
    if len(starts) != count or not pieces:
        raise FileFormatError(
            f"{file.shown}: holds {len(pieces)} fragments for {count} frames; export it again"
        )
    frames: list[list[bytes]] = [[] for _ in starts]
    for start, length in pieces:
        # Offsets count item headers, from the first one after the table.
        place = start - pieces[0][0]
        index = int(np.searchsorted(starts, place, side="right")) - 1
        frames[index].append(content[start : start + length])
    return [b"".join(parts) for parts in frames]


def declared_size(codestream: bytes) -> tuple[int, int] | None:
    """Columns and rows that a JPEG, JPEG-LS or JPEG 2000 stream says it decodes to.

    A decoder allocates what the stream asks for, so this is to be compared with the header
    first. (0, 0) for more than one component; None where the stream does not say, as with RLE.
    """
    if codestream.startswith(_JPEG_2000) and len(codestream) >= 42:
        right, below, left, above = struct.unpack(">4I", codestream[8:24])
        (components,) = struct.unpack(">H", codestream[40:42])
        return (right - left, below - above) if components == 1 else (0, 0)
    if not codestream.startswith(_JPEG):
        return None
    place = 2
    while place + 10 <= len(codestream) and codestream[place] == 0xFF:
        marker = codestream[place + 1]
        if marker in _JPEG_FRAMES:
            rows, columns, components = struct.unpack(">HHB", codestream[place + 5 : place + 10])
            return (columns, rows) if components == 1 else (0, 0)
        # A fill byte stands alone; any other segment tells its length.
        (length,) = struct.unpack(">H", codestream[place + 2 : place + 4])
        place += 1 if marker == 0xFF else 2 + length
    return None
