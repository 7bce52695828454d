"""The header of NRRD files (teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError
from leanseg.files import shortened
from leanseg.volumes.headed import Header, Layout, file_beside, header_lines, millimetres

MAGIC = b"NRRD000"
_VERSIONS = tuple(f"NRRD000{n}" for n in range(1, 6))
_MOST_LINES = 100_000
# Every field, without spaces. One that is misspelt must not be passed over.
_FIELDS = frozenset({
    "type", "dimension", "sizes", "encoding", "endian", "content", "min", "max", "oldmin",
    "oldmax", "sampleunits", "number", "datafile", "lineskip", "byteskip", "spacings",
    "thicknesses", "axismins", "axismaxs", "centers", "centerings", "labels", "units", "kinds",
    "space", "spacedimension", "spaceunits", "spaceorigin", "spacedirections", "measurementframe",
})  # fmt: skip
_TO_RAS = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    # ITK's and Slicer's choice where nothing is said.
    **dict.fromkeys(("left-posterior-superior", "lps", ""), (-1.0, -1.0, 1.0)),
}
_VECTOR = re.compile(r"\(([^()]*)\)|none")
_OF_SPACE = ("domain", "space", "time", "none", "???")


def read_nrrd(path: Path, file: IO[bytes]) -> Layout:
    """What the header of a NRRD file says.

    Raises:
        ValueError: If it is none, or says what is not read.
        FileFormatError: If voxels are complex.
    """
    fields = _fields(file)
    n_axes = fields.dimension("dimension")
    encoding, endian = fields["encoding"].lower(), fields.get("endian", "")
    if encoding not in ("raw", "gzip", "gz"):
        raise ValueError(f"its encoding is {shortened(encoding)}, not raw or gzip")
    dtype = fields.voxel_type("type", endian == "big")
    if endian not in ("little", "big") and dtype.itemsize > 1:
        raise ValueError(f"its header gives endian as {shortened(endian)}")
    spatial, affine = _placed(fields, n_axes, path)
    voxels, start = path, file.tell()
    if "datafile" in fields:
        voxels, start = file_beside(path, fields["datafile"]), 0
    sizes = fields.numbers("sizes", n_axes, kind=int)
    start = _skipped(fields, voxels, start, encoding == "raw")
    return Layout(tuple(sizes), spatial, dtype, affine, voxels, start, encoding != "raw")


def _fields(file: IO[bytes]) -> Header:
    """The fields after the first line, up to an empty one."""
    fields, lines = Header(), header_lines(file)
    if next(lines) not in _VERSIONS:
        raise ValueError("it is of a version of NRRD that is not read")
    for line in lines:
        name, colon, value = line.partition(":")
        if not line:
            break
        # Comments, and pairs of key and value that mean nothing to the format.
        if line.startswith("#") or value.startswith("="):
            continue
        if not colon or fields.add(name.lower().replace(" ", ""), value) not in _FIELDS:
            raise ValueError(f"its header is damaged at {shortened(line)}")
    return fields


def _skipped(fields: Header, voxels: Path, start: int, is_raw: bool) -> int:
    """Where the voxels begin after lines and bytes that are to be skipped; -1 if at the end."""
    (n_lines,) = fields.numbers("lineskip", usual="0", kind=int)
    (n_bytes,) = fields.numbers("byteskip", usual="0", kind=int)
    # Bytes are counted in unpacked form.
    if n_bytes < -1 or (n_bytes and not is_raw) or not 0 <= n_lines <= _MOST_LINES:
        raise ValueError(f"its header skips {n_lines} lines and {n_bytes} bytes")
    with voxels.open("rb") as file:
        file.seek(start)
        for _ in range(n_lines):
            file.readline()
        return file.tell() + n_bytes if n_bytes >= 0 else -1


def _placed(fields: Header, n_axes: int, path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Which axes are those of space, and the affine to RAS+ mm."""
    kinds = fields.get("kinds", "domain " * n_axes).lower().split()
    if "complex" in kinds:
        msg = f"{path}: voxels of type complex are not grey values; convert the scan to an "
        raise FileFormatError(f"{msg}integer or float type first")
    space = fields.get("space", "").lower()
    if space not in _TO_RAS or "axismins" in fields:
        found = f"space {shortened(space)}" if space not in _TO_RAS else "axis mins"
        raise ValueError(f"its place is given by {found}, which is not read")
    if "spacedirections" in fields:
        steps = _vectors(fields, "spacedirections")
    elif space:
        raise ValueError("its header gives a space but no space directions")
    else:
        steps = _along_axes(fields, kinds)
    # The direction of an axis that is not in space is none, or in time alone.
    spatial = tuple(axis for axis, step in enumerate(steps) if any(step))
    if not len(steps) == len(kinds) == n_axes or len(spatial) > 3:
        raise ValueError(f"its header gives {len(kinds)} kinds and {len(spatial)} axes of space")
    origin = _vectors(fields, "spaceorigin") if "spaceorigin" in fields else [[0.0] * 3]
    affine = np.eye(4)
    # A picture's place is not looked at: it is refused for having too few axes.
    if len(spatial) == 3 and len(origin) == 1:
        affine[:3] = np.column_stack([*(steps[axis] for axis in spatial), *origin])
        affine[:3] *= np.array(_TO_RAS[space])[:, None] * _unit_mm(fields, spatial, n_axes)
    return spatial, affine


def _vectors(fields: Header, key: str) -> list[list[float]]:
    """The places of the vectors in a field in space alone; zeros where it says none."""
    n = 4 if fields.get("spacedimension") == "4" else 3
    found = [match.group(1) or "0 " * n for match in _VECTOR.finditer(fields[key])]
    if _VECTOR.sub("", fields[key]).strip():
        raise ValueError(f"its header gives {key} as {shortened(fields[key])}")
    return [Header({key: vector}).numbers(key, n)[:3] for vector in found]


def _along_axes(fields: Header, kinds: Sequence[str]) -> list[list[float]]:
    """The directions of a header that gives nothing but spacings."""
    # An axis of channels has no spacing.
    given = {"spacings": fields.get("spacings", "1 " * len(kinds)).lower().replace("nan", "1")}
    spacings = Header(given).numbers("spacings", len(kinds))
    steps = [[0.0] * 3 for _ in kinds]
    spatial = [axis for axis, kind in enumerate(kinds) if kind in _OF_SPACE][:3]
    for n, axis in enumerate(spatial):
        steps[axis][n] = spacings[axis]
    return steps


def _unit_mm(fields: Header, spatial: Sequence[int], n_axes: int) -> float:
    words = re.findall('"([^"]*)"', fields.get("spaceunits") or fields.get("units", ""))
    used = [words[axis] for axis in spatial] if len(words) == n_axes else words[:3]
    if len(set(used)) > 1:
        raise ValueError(f"its lengths are in {shortened(used)}, which differ")
    return millimetres(used[0]) if used else 1.0
