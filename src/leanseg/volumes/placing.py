"""Where a NIfTI header says that its voxels lie: the one place that decides it.

Lengths are taken in the unit that `xyzt_units` names; where it names none, they are mm. Where sform
and qform both have a code, the sform counts, as in nibabel. The qform counts, as in ITK, where the
sform places no voxel or its voxel spacing is not that of pixdim: such an sform was written by a
program that did not know the scan. With neither, voxels lie as in nibabel, by spacing alone. What a
header contradicts itself in, or leaves open, becomes a note.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import LeansegError
from leanseg.volumes.grids import GRID_TOLERANCE_VOXELS, affines_apart_mm
from leanseg.volumes.volume import is_sound

# Which form counts: by the rule, or by the user's word.
GEOMETRIES = ("auto", "sform", "qform")
# none, scanner, aligned, Talairach, MNI, other template.
XFORM_CODES = range(6)
# The unit of lengths by its code: unknown, metre, millimetre, micrometre.
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNITS = {1: "metres", 3: "micrometres"}
# Spacings that differ by more than this part are two spacings, not one that was rounded.
_SPACING_TOLERANCE = 0.01

_Affine = NDArray[np.float64]


def check_geometry(geometry: str) -> None:
    """Refuse another word than those in `GEOMETRIES`.

    Raises:
        LeansegError: Naming it.
    """
    if geometry not in GEOMETRIES:
        msg = f"geometry {geometry!r} is not known; choose one of {', '.join(GEOMETRIES)}"
        raise LeansegError(msg)


def placed(record: NDArray[Any], geometry: str = "auto") -> tuple[_Affine, tuple[str, ...]]:
    """The affine of a header to RAS+ mm, and what is to be said of it.

    Args:
        record: The header's fields as stored, named as in nibabel.
        geometry: Which counts where both have a code: "sform", "qform", or "auto" for the rule.

    Returns:
        The affine, not finite or singular where the header places no voxel, and notes.
    """
    unit = int(record["xyzt_units"]) & 7
    notes = []
    if unit in _UNITS:
        notes.append(f"its lengths are in {_UNITS[unit]}; they were converted to mm")
    elif unit not in _MM:
        notes.append(f"its unit of length has the unknown code {unit}; taken for mm")
    mm = _MM.get(unit, 1.0)
    forms = {
        name: _in_mm(form(record), mm)
        for name, form in (("sform", _sform), ("qform", _qform))
        if int(record[f"{name}_code"]) in XFORM_CODES[1:]
    }
    if not forms:
        notes.append("its sform and qform have no code; taken as LAS, by the spacing alone")
        return _in_mm(_by_spacing(record), mm), tuple(notes)
    taken, note = _chosen(record, forms, mm, geometry)
    return forms[taken], (*notes, note) if note else tuple(notes)


def _chosen(
    record: NDArray[Any], forms: dict[str, _Affine], mm: float, geometry: str
) -> tuple[str, str | None]:
    """Which form counts, and what to say where another one, or pixdim, contradicts it."""
    sound = [name for name, affine in forms.items() if is_sound(affine)]
    taken = geometry if geometry in forms else (sound or list(forms))[0]
    pixdim = np.abs(record["pixdim"][1:4].astype(np.float64)) * mm
    why = ""
    if "sform" in sound and not _has_spacing(forms["sform"], pixdim):
        steps = np.linalg.norm(forms["sform"][:3, :3], axis=0)
        why = f"its sform has voxels of {_listed(steps)} mm, its pixdim of {_listed(pixdim)} mm"
        if geometry == "auto" and "qform" in sound:
            taken = "qform"
    other = next((name for name in forms if name != taken), None)
    if other is not None and other not in sound:
        why = why or f"its {other} places no voxel"
    elif other is not None and taken in sound:
        shape = np.maximum(record["dim"][1:4], 1)
        apart_mm = affines_apart_mm(forms[taken], forms[other], shape)
        spacing = np.linalg.norm(forms[taken][:3, :3], axis=0).min()
        if apart_mm > GRID_TOLERANCE_VOXELS * spacing:
            apart = f"its sform and qform place voxels up to {apart_mm:.3g} mm apart"
            why = f"{apart}, and {why}" if why else apart
    return taken, f"{why}; the {taken} counts" if why else None


def _has_spacing(affine: _Affine, spacing: _Affine) -> bool:
    """Whether voxels have a spacing; where axes are sheared, between planes or along the axis."""
    if not (np.isfinite(spacing).all() and spacing.all()):
        return True
    along = np.linalg.norm(affine[:3, :3], axis=0)
    between = 1 / np.linalg.norm(np.linalg.inv(affine[:3, :3]), axis=1)
    low, high = between * (1 - _SPACING_TOLERANCE), along * (1 + _SPACING_TOLERANCE)
    return bool(((low <= spacing) & (spacing <= high)).all())


def _listed(spacing: _Affine) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing)


def _in_mm(rows: NDArray[Any], mm: float) -> _Affine:
    """The affine with these upper rows, (3, 4), whose unit is so long."""
    affine = np.eye(4)
    affine[:3] = rows
    affine[:3] *= mm
    return affine


def _sform(record: NDArray[Any]) -> NDArray[Any]:
    return np.stack([record[f"srow_{axis}"] for axis in "xyz"])


def _qform(record: NDArray[Any]) -> NDArray[Any]:
    pixdim = np.abs(record["pixdim"][1:4])
    # As nibabel: whatever is not -1 does not mirror.
    handedness = np.array([1, 1, -1 if record["pixdim"][0] == -1 else 1], dtype=np.float32)
    offset = [record[f"qoffset_{axis}"] for axis in "xyz"]
    return np.column_stack([_rotation(record) @ np.diag(pixdim * handedness), offset])


def _by_spacing(record: NDArray[Any]) -> NDArray[Any]:
    spacing = np.abs(record["pixdim"][1:4]).astype(np.float64) * (-1, 1, 1)
    offset = -((record["dim"][1:4].astype(np.float64) - 1) / 2) * spacing
    return np.column_stack([np.diag(spacing), offset])


def _rotation(record: NDArray[Any]) -> NDArray[Any]:
    """The unit quaternion as a matrix (NIfTI-1 standard, method 2); not finite where it is none."""
    vector = np.array([record[f"quatern_{n}"] for n in "bcd"], np.longdouble)
    squared: Any = 1.0 - vector @ vector
    # Below this the scalar part is taken for zero: the fields have limited precision.
    if abs(squared) < np.finfo(record["quatern_b"].dtype).eps * 3:
        squared = np.longdouble(0)
    if not squared >= 0:
        return np.full((3, 3), np.nan)
    a, (b, c, d) = np.sqrt(squared), vector
    twice = 2.0 / (a * a + b * b + c * c + d * d)
    b2, c2, d2 = b * twice, c * twice, d * twice
    return np.array(
        [
            [1.0 - (c * c2 + d * d2), b * c2 - a * d2, b * d2 + a * c2],
            [b * c2 + a * d2, 1.0 - (b * b2 + d * d2), c * d2 - a * b2],
            [b * d2 - a * c2, c * d2 + a * b2, 1.0 - (b * b2 + c * c2)],
        ]
    )
