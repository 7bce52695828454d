"""Describing a series: what its headers say of the scan, the grid, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.errors import GeometryError, LeansegError
from leanseg.volumes.dicom.checks import checked_frames, patient_of
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame, frames_of
from leanseg.volumes.dicom.geometry import Stack, stacked
from leanseg.volumes.dicom.kinds import VOLUME, kind_of
from leanseg.volumes.dicom.phases import Phase, separated
from leanseg.volumes.dicom.pixels import syntax_name
from leanseg.volumes.dicom.series import Series
from leanseg.volumes.dicom.tilt import upright_grid
from leanseg.volumes.dicom.values import decoded, integer, text
from leanseg.volumes.dicom.voxels import LOWEST_HU, declared_padding, is_tissue

_WORTH_TELLING_MM = 1e-3


def described(path: Path, files: Sequence[ImageFile]) -> Series:
    """Describe the files of one series, whatever state they are in.

    Args:
        path: What the user gave.
        files: At least one.
    """
    frames_by_file = [frames_of(file) for file in files]
    kinds = [kind_of(file, frames) for file, frames in zip(files, frames_by_file, strict=True)]
    kind = VOLUME if VOLUME in kinds else Counter(kinds).most_common(1)[0][0]
    chosen = [n for n, found in enumerate(kinds) if found == kind]
    header = files[chosen[0]].header
    common: dict[str, Any] = {
        "path": path,
        "uid": text(header, "SeriesInstanceUID"),
        "number": integer(header, "SeriesNumber"),
        "description": decoded(header, "SeriesDescription"),
        "modality": text(header, "Modality").upper(),
        "patient": patient_of(files[chosen[0]]),
        "transfer_syntax": syntax_name(files[chosen[0]].syntax),
    }
    frames = [frame for n in chosen for frame in frames_by_file[n]]
    notes = [
        f"{_counted(count, f'file of another kind ({other})', f'files of another kind ({other})')}"
        " left out"
        for other, count in Counter(found for found in kinds if found != kind).items()
    ]
    chosen_files = [files[n] for n in chosen]
    if kind == VOLUME and len(frames) > 1:
        return _described_volume(chosen_files, frames, notes, common)
    kind = "single slice" if kind == VOLUME else kind
    shown = tuple(file.shown for file in chosen_files)
    return Series(**common, kind=kind, files=shown, notes=tuple(notes))


def _described_volume(
    files: list[ImageFile], frames: list[Frame], notes: list[str], common: dict[str, Any]
) -> Series:
    name = str(common["path"])
    name = name if common["number"] is None else f"{name}, series {common['number']}"
    try:
        frames, strays = checked_frames(files, frames, common["path"])
        phases, n_copies = separated(frames, name)
    except LeansegError as error:
        shown = tuple(file.shown for file in files)
        return Series(**common, kind=VOLUME, files=shown, notes=tuple(notes), problem=error)
    stacks = tuple(_stacked(phase, name) for phase in phases)
    regular = [stack for stack in stacks if isinstance(stack, Stack)]
    common |= {
        "kind": VOLUME,
        "files": tuple(dict.fromkeys(f.file.shown for s in regular for f in s.frames)),
        "phases": tuple(phase.name for phase in phases) if len(phases) > 1 else (),
        "n_copies": n_copies,
        "rescale": _rescale(frames),
        "padding": _padding(frames[0], common["modality"]),
        "thickness_mm": frames[0].thickness,
        "notes": (*notes, *strays, *_notes(frames[0], regular, n_copies, common["modality"])),
        "stacks": stacks,
    }
    if not regular:
        common["files"] = tuple(file.shown for file in files)
        problem = next(stack for stack in stacks if isinstance(stack, GeometryError))
        return Series(**common, problem=problem)
    return Series(**common, **_grid(regular[0]))


def _stacked(phase: Phase, name: str) -> Stack | GeometryError:
    try:
        return stacked(phase.frames, f"{name}, {phase.name}" if phase.name else name)
    except GeometryError as error:
        return error


def _grid(stack: Stack) -> dict[str, Any]:
    """The grid of the volume that reading gives."""
    from nibabel.orientations import aff2axcodes

    shape, affine = stack.shape, stack.affine_ras
    if stack.tilt_degrees:
        shape, affine = upright_grid(shape, affine)
    i, j, k = np.linalg.norm(affine[:3, :3], axis=0)
    return {
        "shape": shape,
        "affine": affine,
        "spacing_mm": (float(i), float(j), float(k)),
        "orientation": "".join(aff2axcodes(affine)),
        "tilt_degrees": stack.tilt_degrees,
        "missing": tuple(f"slice {k + 1} ({stack.place_name(k)})" for k in stack.missing),
    }


def _notes(first: Frame, stacks: list[Stack], n_copies: int, modality: str) -> list[str]:
    notes = []
    if n_copies:
        notes.append(
            f"{_counted(n_copies, 'identical copy of a slice', 'identical copies of slices')} "
            "left out"
        )
    worst = max((stack.deviation_mm for stack in stacks), default=0.0)
    if worst > _WORTH_TELLING_MM:
        notes.append(f"slices lie up to {worst:.2g} mm off the even grid")
    tilt = max((stack.tilt_degrees for stack in stacks), default=0.0)
    if tilt:
        notes.append(f"gantry tilt of {tilt:.1f} degrees, resampled to an upright grid")
    if text(first.file.header, "PhotometricInterpretation") == "MONOCHROME1":
        notes.append(
            "MONOCHROME1: Hounsfield units do not depend on it and are left as they are"
            if modality == "CT"
            else "MONOCHROME1: grey values inverted, so that large is bright"
        )
    padding = declared_padding(first) if modality == "CT" else None
    if padding is not None and is_tissue(first, padding):
        notes.append("the declared padding value is also that of a tissue and is left as it is")
    return notes


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _rescale(frames: Sequence[Frame]) -> str:
    found = {(frame.slope, frame.intercept) for frame in frames}
    if len(found) > 1:
        return f"differs between slices ({len(found)} pairs of slope and intercept)"
    slope, intercept = next(iter(found))
    return f"{slope:g} x stored value {intercept:+g}"


def _padding(first: Frame, modality: str) -> str:
    """The declared padding, and what becomes of it."""
    found = declared_padding(first)
    if found is None:
        return f"none declared, below {LOWEST_HU} HU made air" if modality == "CT" else ""
    stored = " to ".join(f"{value}" for value in dict.fromkeys(found))
    real = " to ".join(f"{v * first.slope + first.intercept:g}" for v in dict.fromkeys(found))
    return f"stored {stored}, rescaled {real}"
