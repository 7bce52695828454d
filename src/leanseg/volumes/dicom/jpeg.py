"""What a compressed image says of itself, to be known before a decoder believes it.

Decoders allocate what the image asks for, and some end the whole process on damaged ones.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_JPEG_2000 = b"\xff\x4f\xff\x51"
_JPEG = b"\xff\xd8\xff"
# Markers of JPEG that start a frame and so give its size: SOF0 to SOF15 but for DHT, JPG and
# DAC, and SOF55 of JPEG-LS.
_JPEG_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Frame types of the transfer syntaxes with Huffman coding: baseline, extended, lossless.
_JPEG_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": {0xC0},
    "1.2.840.10008.1.2.4.51": {0xC0, 0xC1},
    "1.2.840.10008.1.2.4.57": {0xC3},
    "1.2.840.10008.1.2.4.70": {0xC3},
}


def declared_size(codestream: bytes) -> tuple[int, int] | None:
    """Columns and rows that a JPEG, JPEG-LS or JPEG 2000 stream says it decodes to.

    (0, 0) for more than one component; None where the stream does not say, as with RLE.
    """
    if codestream.startswith(_JPEG_2000) and len(codestream) >= 42:
        right, below, left, above = struct.unpack(">4I", codestream[8:24])
        (components,) = struct.unpack(">H", codestream[40:42])
        return (right - left, below - above) if components == 1 else (0, 0)
    if not codestream.startswith(_JPEG):
        return None
    for marker, place in _segments(codestream):
        if marker in _JPEG_FRAMES and place + 6 <= len(codestream):
            rows, columns, components = struct.unpack(">HHB", codestream[place + 1 : place + 6])
            return (columns, rows) if components == 1 else (0, 0)
    return None


def is_sound_jpeg(codestream: bytes, syntax: str) -> bool:
    """Whether a grey JPEG image is built as its transfer syntax demands, as far as markers tell.

    True for syntaxes that are not JPEG with Huffman coding.

    GDCM ends the whole process on some images that are not, so they must not reach it.
    """
    if syntax not in _JPEG_SYNTAXES:
        return True
    segments = list(_segments(codestream))
    frames = [(marker, place) for marker, place in segments if marker in _JPEG_FRAMES]
    if len(frames) != 1 or segments[-1][0] != _START_OF_SCAN:
        return False
    marker, place = frames[0]
    if marker not in _JPEG_SYNTAXES[syntax] or not 2 <= codestream[place] <= 16:
        return False
    # One scan, in which a marker's first byte is followed by 0 or a restart, to the end.
    found = _MARKER_IN_SCAN.search(codestream, segments[-1][1])
    return found is None or found.group()[1] == _END_OF_IMAGE


def _segments(codestream: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG image up to its scan, and where the content of each begins.

    Ends early where something else than a marker follows.
    """
    place = 2
    while place + 4 <= len(codestream) and codestream[place] == 0xFF:
        marker = codestream[place + 1]
        # A fill byte stands alone; any other segment tells its length.
        if marker == 0xFF:
            place += 1
            continue
        (length,) = struct.unpack(">H", codestream[place + 2 : place + 4])
        yield marker, place + 4
        if marker == _START_OF_SCAN:
            return
        place += 2 + length
