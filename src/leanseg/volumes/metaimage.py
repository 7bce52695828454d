"""The header of MetaImage files (itk.org/Wiki/ITK/MetaIO/Documentation)."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from leanseg.files import shortened
from leanseg.volumes.axes import LPS_TO_RAS
from leanseg.volumes.headed import Header, Layout, file_beside, header_lines, millimetres

_LAST = "ElementDataFile"
# What the format has several names for.
_USUAL = {
    "Position": "Offset", "Origin": "Offset", "MET_LONG": "MET_INT", "MET_ULONG": "MET_UINT",
    "Rotation": "TransformMatrix", "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}  # fmt: skip


def read_metaimage(path: Path, file: IO[bytes]) -> Layout:
    """What the header of a MetaImage file says.

    Raises:
        ValueError: If it is none, or says what is not read.
    """
    fields = Header()
    for line in header_lines(file):
        name, equals, value = (
            _USUAL.get(part.strip(), part.strip()) for part in line.partition("=")
        )
        if not equals or fields.add(name, value) == _LAST:
            break
    if _LAST not in fields or fields.get("ObjectType", "Image") != "Image":
        raise ValueError("it is not a MetaImage or NRRD file, or its header is damaged")
    (slope,) = fields.numbers("ElementToIntensityFunctionSlope", usual="1")
    (offset,) = fields.numbers("ElementToIntensityFunctionOffset", usual="0")
    if (slope, offset) != (1, 0) or not _is_true(fields, "BinaryData", "True"):
        raise ValueError("its voxels are to be scaled, or are written as text, which is not read")
    (channels,) = fields.numbers("ElementNumberOfChannels", usual="1", kind=int)
    n_axes = fields.dimension("NDims")
    is_packed = _is_true(fields, "CompressedData", "False")
    (start,) = fields.numbers("HeaderSize", usual="0", kind=int)
    if fields[_LAST].upper() == "LOCAL":
        # Counted from the beginning of the file, header included, where it is given.
        voxels, first = path, file.tell()
        start = start or first
    else:
        voxels, first = file_beside(path, fields[_LAST]), 0
    if start < (0 if is_packed else -1) or 0 <= start < first:
        raise ValueError(f"its header gives HeaderSize as {shortened(fields['headersize'])}")
    return Layout(
        (channels, *fields.numbers("DimSize", n_axes, kind=int)),
        tuple(range(1, n_axes + 1))[:3],
        fields.voxel_type("ElementType", _is_true(fields, "BinaryDataByteOrderMSB", "False")),
        _affine(fields, n_axes),
        voxels,
        start,
        is_packed,
    )


def _is_true(fields: Header, key: str, usual: str) -> bool:
    value = fields.get(key, usual)
    if value[:1] not in set("TtFf10"):
        raise ValueError(f"its header gives {key} as {shortened(value)}")
    return value[0] in "Tt1"


def _affine(fields: Header, n_axes: int) -> NDArray[np.float64]:
    spacing = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    steps = np.array(fields.numbers(spacing, n_axes, "1 " * n_axes))
    usual = " ".join(map(str, np.eye(n_axes).ravel()))
    matrix = np.reshape(fields.numbers("TransformMatrix", n_axes**2, usual), (n_axes, n_axes))
    to_lps = np.eye(n_axes + 1)
    to_lps[:-1, :-1] = matrix.T * steps
    to_lps[:-1, -1] = fields.numbers("Offset", n_axes, "0 " * n_axes)
    to_lps[:-1] *= millimetres(fields.get("DistanceUnits", "mm"))
    affine = np.eye(4)
    # A picture's place is not looked at: it is refused for having too few axes.
    affine[:3] = to_lps[:3, [0, 1, 2, -1]] if n_axes >= 3 else affine[:3]
    return np.asarray(LPS_TO_RAS @ affine)
