"""MetaImage (.mha, .mhd) and NRRD in: a text header, then voxels, in the same file or beside it.

They are read here, not by SimpleITK: its C++ believes what a header says. `NDims = -1` ends the
process, 300 digits keep it busy for ever, and compressed voxels that do not unpack come back as
if they were the scan. Here a header and its numbers are short and finite, the file of voxels lies
beside it and is long enough for them. What would change voxels or their places and is not
understood is refused, and so are voxels that are written as text or in several files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, LeansegError
from leanseg.files import shortened
from leanseg.volumes.volume import StoredVolume, Volume, squeezed_shape

_LARGEST_DIMENSION = 8
_LARGEST_HEADER_BYTES = 1 << 20
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LONGEST_NUMBER = 40
_BLOCK_BYTES = 1 << 20
# Deflate cannot do more.
_LARGEST_RATIO = 1032
_GZIP_MAGIC = b"\x1f\x8b"
_CUT_SHORT = "the file is cut short, it holds fewer voxels than its header says"
_MM = {"": 1.0, "?": 1.0, "mm": 1.0, "um": 1e-3, "cm": 10.0, "m": 1000.0}
_TYPES = {
    "char": "i1", "short": "i2", "int": "i4", "longlong": "i8", "float": "f4", "double": "f8",
    "uchar": "u1", "ushort": "u2", "uint": "u4", "ulonglong": "u8",
    "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
}  # fmt: skip


class Header(dict[str, str]):
    """The fields of a header by name."""

    def __missing__(self, key: str) -> str:
        raise ValueError(f"its header does not give {key}")

    def add(self, key: str, value: str) -> str:
        """Take a field, and return its name.

        Raises:
            ValueError: If it was given already.
        """
        if self.setdefault(key, value.strip()) != value.strip():
            raise ValueError(f"its header gives {shortened(key)} twice")
        return key

    def numbers(
        self, key: str, n: int = 1, usual: str = "", kind: Callable[[str], Any] = float
    ) -> list[Any]:
        """The numbers in a field, or in what is usual where it is not given.

        Raises:
            ValueError: If they are more or fewer than `n`, or one is not a finite number.
        """
        text = self.get(key, usual) or self[key]
        words = text.replace(",", " ").split()
        sound = all(len(word) <= _LONGEST_NUMBER and _NUMBER.fullmatch(word) for word in words)
        if not sound or len(words) != n or (kind is int and not all(map(_is_whole, words))):
            raise ValueError(f"its header gives {key} as {shortened(text)}")
        return [kind(word) for word in words]

    def dimension(self, key: str) -> int:
        """The number of axes in a field.

        Raises:
            ValueError: If no volume has as many.
        """
        (n_axes,) = self.numbers(key, kind=int)
        if not 1 <= n_axes <= _LARGEST_DIMENSION:
            raise ValueError(f"its header gives {key} as {n_axes}")
        return int(n_axes)

    def voxel_type(self, key: str, big_endian: bool) -> np.dtype[Any]:
        """The type that a field names.

        Raises:
            ValueError: If it is none of numbers.
        """
        name = self[key].lower().removeprefix("met_").removesuffix("_array").removesuffix("_t")
        for long, short in (
            ("unsigned ", "u"),
            ("signed ", ""),
            (" int", ""),
            (" ", ""),
            ("_", ""),
        ):
            name = name.replace(long, short)
        if name not in _TYPES:
            raise ValueError(f"its voxels are of type {shortened(self[key])}, which is not read")
        return np.dtype((">" if big_endian else "<") + _TYPES[name])


def _is_whole(word: str) -> bool:
    return word.lstrip("+-").isdigit()


@dataclass(frozen=True)
class Layout:
    """What a header says.

    Attributes:
        sizes: Of the array as it is stored, the fastest axis first.
        spatial: Which of its axes are those of space; the others hold channels.
        dtype: Of the stored voxels.
        affine: To RAS+ mm.
        file: What holds the voxels.
        start: Where they begin in it; -1: they are its end.
        is_packed: Whether they are compressed, by zlib or gzip.
    """

    sizes: tuple[int, ...]
    spatial: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    file: Path
    start: int
    is_packed: bool


def open_headed(path: Path) -> StoredVolume:
    """A MetaImage or NRRD file; components or a fourth axis become channels.

    Integer voxels keep their type, floats become float32.

    Raises:
        FileFormatError: If the header or the voxels are damaged, missing, or of a kind that is
            not read.
        GeometryError: If the grid is not 3-D (4-D with channels).
    """
    from leanseg.volumes.metaimage import read_metaimage
    from leanseg.volumes.nrrd import MAGIC, read_nrrd

    try:
        with path.open("rb") as file:
            is_nrrd = file.read(len(MAGIC)) == MAGIC
            file.seek(0)
            layout = (read_nrrd if is_nrrd else read_metaimage)(path, file)
        others = tuple(n for n in range(len(layout.sizes)) if n not in layout.spatial)
        # Components of a 2-D picture are not a third axis.
        order = layout.spatial + (others if len(layout.spatial) == 3 else ())
        shape = squeezed_shape([layout.sizes[axis] for axis in order], path)
        # Before memory is taken for voxels that cannot be there.
        there = layout.file.stat().st_size - max(layout.start, 0)
        stored_bytes = math.prod(shape) * layout.dtype.itemsize
        if stored_bytes > there * (_LARGEST_RATIO if layout.is_packed else 1):
            raise ValueError(_CUT_SHORT)
    except (ValueError, OSError) as error:
        raise _explained(path, error) from error
    dtype = np.dtype(np.float32) if layout.dtype.kind == "f" else layout.dtype.newbyteorder("=")

    def read() -> Volume:
        try:
            array = _voxels(layout).transpose(order).reshape(shape, order="F")
        except Exception as error:  # damaged, or a file that changed or went away
            raise _explained(path, error) from error
        with np.errstate(over="ignore"):
            return Volume(array.astype(dtype, copy=False), layout.affine, path)

    reading = 3 * _BLOCK_BYTES + (stored_bytes if layout.dtype.itemsize != dtype.itemsize else 0)
    return StoredVolume(path, shape, dtype, layout.affine, read, reading_bytes=reading)


def _explained(path: Path, error: Exception) -> LeansegError:
    if isinstance(error, LeansegError):
        return error
    why = str(error.strerror if isinstance(error, OSError) else error)
    return FileFormatError(f"{path}: cannot be read: {why}; copy or export it again")


def header_lines(file: IO[bytes]) -> Iterator[str]:
    """The lines of a header, stripped; as many as a header may have.

    Raises:
        ValueError: If it is longer than any header, or no text.
    """
    while line := file.readline(_LARGEST_HEADER_BYTES):
        if file.tell() > _LARGEST_HEADER_BYTES or b"\0" in line:
            raise ValueError("its header has no end, or is no text")
        yield line.decode(errors="surrogateescape").strip()


def millimetres(unit: str) -> float:
    """The length of a unit.

    Raises:
        ValueError: If it is not known.
    """
    if unit not in _MM:
        raise ValueError(f"its lengths are in {shortened(unit)}, not in mm")
    return _MM[unit]


def file_beside(header: Path, name: str) -> Path:
    """The file of voxels that a header names.

    Raises:
        ValueError: If it is not another file in the header's folder.
    """
    inner = Path(name)
    if inner.is_absolute() or ".." in inner.parts:
        raise ValueError(f"its voxels are in {shortened(name)}, which is not in its folder")
    file = header.parent / inner
    if not file.is_file() or file.samefile(header):
        raise ValueError(f"its voxels are in {shortened(name)}, which is missing")
    return file


def _voxels(layout: Layout) -> NDArray[Any]:
    """The stored array, in native byte order."""
    n_voxels, dtype = math.prod(layout.sizes), layout.dtype
    start = layout.start
    if start < 0:
        start = layout.file.stat().st_size - n_voxels * dtype.itemsize
    if layout.is_packed:
        array = np.empty(n_voxels, dtype)
        with layout.file.open("rb") as file:
            file.seek(start)
            _inflate(file, array.view(np.uint8))
    else:
        array = np.fromfile(layout.file, dtype, n_voxels, offset=start)
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array.reshape(layout.sizes, order="F")


def _inflate(file: IO[bytes], memory: NDArray[np.uint8]) -> None:
    """Unpack what zlib or gzip packed, and compare its checksum."""
    from isal import isal_zlib

    at, packed = 0, file.read(_BLOCK_BYTES)
    unpack: Any = isal_zlib.decompressobj(wbits=47)
    while at < memory.size or not unpack.eof:
        block = unpack.decompress(packed, _BLOCK_BYTES)
        if at + len(block) > memory.size:
            raise ValueError("it holds more voxels than its header says")
        memory[at : at + len(block)] = np.frombuffer(block, np.uint8)
        at += len(block)
        if unpack.eof and unpack.unused_data.startswith(_GZIP_MAGIC):
            # Another member of the same file.
            packed, unpack = unpack.unused_data, isal_zlib.decompressobj(wbits=47)
            continue
        packed = unpack.unconsumed_tail or file.read(_BLOCK_BYTES)
        if not packed and not block:
            raise ValueError(_CUT_SHORT)
