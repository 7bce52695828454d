"""The ordinary NIfTI-1 header, read without nibabel.

Importing nibabel takes longer than reading many a scan, and nearly all headers need none of its
care: every field is what the standard asks for. Those are read here, with nibabel's results to
the last bit; all others (and NIfTI-2) are left to nibabel and its repairs.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SIZE = 348
FIRST_VOXEL = 352
_MAGIC = b"n+1"
# NIfTI's xform codes: none, scanner, aligned, Talairach, MNI, other template.
_XFORM_CODES = range(6)
_DTYPES = {
    **{2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8"},
    **{256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"},
}
_FIELDS = np.dtype(
    [
        *(("sizeof_hdr", "i4"), ("data_type", "S10"), ("db_name", "S18"), ("extents", "i4")),
        *(("session_error", "i2"), ("regular", "S1"), ("dim_info", "u1"), ("dim", "i2", (8,))),
        *(("intent_p1", "f4"), ("intent_p2", "f4"), ("intent_p3", "f4"), ("intent_code", "i2")),
        *(("datatype", "i2"), ("bitpix", "i2"), ("slice_start", "i2"), ("pixdim", "f4", (8,))),
        *(("vox_offset", "f4"), ("scl_slope", "f4"), ("scl_inter", "f4"), ("slice_end", "i2")),
        *(("slice_code", "u1"), ("xyzt_units", "u1"), ("cal_max", "f4"), ("cal_min", "f4")),
        *(("slice_duration", "f4"), ("toffset", "f4"), ("glmax", "i4"), ("glmin", "i4")),
        *(("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i2"), ("sform_code", "i2")),
        *(("quatern_b", "f4"), ("quatern_c", "f4"), ("quatern_d", "f4")),
        *(("qoffset_x", "f4"), ("qoffset_y", "f4"), ("qoffset_z", "f4")),
        *(("srow_x", "f4", (4,)), ("srow_y", "f4", (4,)), ("srow_z", "f4", (4,))),
        *(("intent_name", "S16"), ("magic", "S4")),
    ]
)
# Below this a quaternion's scalar part is taken for zero: the fields are float32.
_ZERO_SCALAR = float(np.finfo(np.float32).eps * 3)


class PlainHeader:
    """A NIfTI-1 header in which nothing needs repair.

    Fields go by the standard's names, `header["pixdim"]`, as in nibabel's header, which
    `nibabel.Nifti1Header(header.binaryblock)` gives.

    Args:
        block: Its 348 bytes.
        order: "<" or ">".
    """

    sizeof_hdr = SIZE

    def __init__(self, block: bytes, order: Literal["<", ">"]) -> None:
        self.order = order
        self._record: NDArray[Any] = np.ndarray((), _FIELDS.newbyteorder(order), bytearray(block))

    @classmethod
    def parse(cls, block: bytes) -> PlainHeader | None:
        """The header, if it is an ordinary one."""
        orders: tuple[Literal["<", ">"], ...] = ("<", ">")
        for order in orders:
            header = cls(block, order)
            if header["sizeof_hdr"] == SIZE:
                return header if header._is_plain() else None
        return None

    def _is_plain(self) -> bool:
        n_axes, pixdim, offset = int(self["dim"][0]), self["pixdim"], float(self["vox_offset"])
        slope, inter = float(self["scl_slope"]), float(self["scl_inter"])
        positive = np.isfinite(pixdim[1:4]).all() and (pixdim[1:4] > 0).all()
        return bool(
            3 <= n_axes <= 7
            and (self["dim"][1 : n_axes + 1] > 0).all()
            # FreeSurfer's way of writing long vectors.
            and tuple(self["dim"][1:4]) != (27307, 1, 6)
            and int(self["datatype"]) in _DTYPES
            and self["magic"].item() == _MAGIC
            and positive
            and pixdim[0] in (-1, 1)
            and math.isfinite(offset)
            and offset >= FIRST_VOXEL
            and int(self["qform_code"]) in _XFORM_CODES
            and int(self["sform_code"]) in _XFORM_CODES
            and (slope == 0 or not math.isfinite(slope) or math.isfinite(inter))
            and (self["sform_code"] or not self["qform_code"] or self._scalar_part() is not None)
        )

    def __getitem__(self, name: str) -> Any:
        return self._record[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._record[name] = value

    def __contains__(self, name: object) -> bool:
        return name in (_FIELDS.names or ())

    def set_dtype(self, dtype: np.dtype[Any]) -> bool:
        """Make it the header of voxels of a type that follow at once; False if there is no such."""
        codes = {np.dtype(name): code for code, name in _DTYPES.items()}
        code = codes.get(dtype.newbyteorder("="))
        if code is None:
            return False
        self["datatype"], self["bitpix"], self["vox_offset"] = code, 8 * dtype.itemsize, FIRST_VOXEL
        return True

    def copy(self) -> PlainHeader:
        """A header of its own."""
        return PlainHeader(self.binaryblock, self.order)

    @property
    def binaryblock(self) -> bytes:
        """The 348 bytes."""
        return self._record.tobytes()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array as stored."""
        return tuple(int(n) for n in self["dim"][1 : int(self["dim"][0]) + 1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels as stored, in the header's byte order."""
        return np.dtype(_DTYPES[int(self["datatype"])]).newbyteorder(self.order)

    @property
    def first_voxel(self) -> int:
        """Byte at which the voxels begin."""
        return int(self["vox_offset"])

    @property
    def slope_inter(self) -> tuple[float, float]:
        """What stored values are multiplied by, and what is added then."""
        slope, inter = float(self["scl_slope"]), float(self["scl_inter"])
        return (1.0, 0.0) if slope == 0 or not math.isfinite(slope) else (slope, inter)

    @property
    def affine(self) -> NDArray[np.float64]:
        """To RAS+ mm: the sform where its code is set, else the qform, else spacing alone."""
        affine = np.eye(4)
        if self["sform_code"]:
            for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
                affine[row] = self[name]
        elif self["qform_code"]:
            affine[:3, :3] = self._rotation() @ np.diag(self["pixdim"][1:4] * self._handedness())
            affine[:3, 3] = [self[f"qoffset_{axis}"] for axis in "xyz"]
        else:
            spacing = self["pixdim"][1:4].astype(np.float64) * (-1, 1, 1)
            affine[:3, :3] = np.diag(spacing)
            affine[:3, 3] = -((np.array(self.shape[:3]) - 1) / 2) * spacing
        return affine

    def _handedness(self) -> NDArray[np.float32]:
        return np.array([1, 1, self["pixdim"][0]], dtype=np.float32)

    def _scalar_part(self) -> Any:
        """Of the unit quaternion, in the widest type; None where the rest is too long for one."""
        vector = self._vector_part()
        squared = 1.0 - vector @ vector
        if abs(squared) < _ZERO_SCALAR:
            return np.longdouble(0)
        return np.sqrt(squared) if squared > 0 else None

    def _vector_part(self) -> NDArray[Any]:
        return np.array([self[f"quatern_{part}"] for part in "bcd"], dtype=np.longdouble)

    def _rotation(self) -> NDArray[Any]:
        """The quaternion as a matrix (NIfTI-1 standard, method 2)."""
        a, (b, c, d) = self._scalar_part(), self._vector_part()
        twice = 2.0 / (a * a + b * b + c * c + d * d)
        b2, c2, d2 = b * twice, c * twice, d * twice
        return np.array(
            [
                [1.0 - (c * c2 + d * d2), b * c2 - a * d2, b * d2 + a * c2],
                [b * c2 + a * d2, 1.0 - (b * b2 + d * d2), c * d2 - a * b2],
                [b * d2 - a * c2, c * d2 + a * b2, 1.0 - (b * b2 + c * c2)],
            ]
        )
