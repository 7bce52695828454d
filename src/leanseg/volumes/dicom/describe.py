"""A series from its files: what the headers say of the scan, the grid, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame, frames_of
from leanseg.volumes.dicom.geometry import Stack, check_frame, same_directions, stacked
from leanseg.volumes.dicom.phases import separated
from leanseg.volumes.dicom.pixels import pixel_fault, syntax_name
from leanseg.volumes.dicom.series import VOLUME, Series, kind_of
from leanseg.volumes.dicom.values import integer, text
from leanseg.volumes.dicom.voxels import LOWEST_HU, declared_padding, is_tissue

_WORTH_TELLING_MM = 1e-3
# RescaleType of CT: what is modified (HU_MOD) is still on that scale.
_HOUNSFIELD = ("", "HU", "HU_MOD")


def described(path: Path, files: Sequence[ImageFile]) -> Series:
    """Describe the files of one series, whatever state they are in.

    Args:
        path: What the user gave.
        files: At least one.
    """
    frames_by_file = [frames_of(file) for file in files]
    kinds = [kind_of(file, frames) for file, frames in zip(files, frames_by_file, strict=True)]
    kind = VOLUME if VOLUME in kinds else Counter(kinds).most_common(1)[0][0]
    if kind == VOLUME:
        # Among slices with a place an image without is a slice that lost it.
        kinds = [VOLUME if found == "projection" else found for found in kinds]
    chosen = [frames_by_file[n] for n, found in enumerate(kinds) if found == kind]
    frames = [frame for of_file in chosen for frame in of_file]
    others = Counter(found for found in kinds if found != kind)
    first = frames[0].file
    series = Series(
        path=path,
        uid=text(first.header, "SeriesInstanceUID"),
        number=integer(first.header, "SeriesNumber"),
        description=text(first.header, "SeriesDescription"),
        modality=text(first.header, "Modality").upper(),
        kind="single slice" if kind == VOLUME and len(frames) == 1 else kind,
        files=_shown(frames),
        notes=tuple(
            f"files of another kind ({other}) left out: {count}" for other, count in others.items()
        ),
        patient=patient_of(first),
        transfer_syntax=syntax_name(first.syntax),
    )
    return _with_grid(series, frames) if series.kind == VOLUME else series


def _shown(frames: Sequence[Frame]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(frame.file.shown for frame in frames))


def _with_grid(series: Series, frames: list[Frame]) -> Series:
    """The series with its slices in order, or with the problem that they have."""
    name = str(series.path)
    name = name if series.number is None else f"{name}, series {series.number}"
    try:
        check_frames(frames, series.path, series.modality)
        phases, n_copies = separated(frames, name)
    except LeansegError as error:
        return replace(series, problem=error)
    stacks = tuple(_stacked(of_phase, phase, name) for phase, of_phase in phases.items())
    regular = [stack for stack in stacks if isinstance(stack, Stack)]
    notes = (*series.notes, *_notes(frames[0], regular, n_copies, series.modality))
    return replace(
        series,
        files=_shown([frame for stack in regular for frame in stack.frames]) or series.files,
        phases=tuple(phases) if len(phases) > 1 else (),
        rescale=_rescale(frames),
        padding=_padding(frames[0], series.modality),
        thickness_mm=frames[0].thickness,
        notes=notes,
        stacks=stacks,
        problem=None if regular else next(s for s in stacks if isinstance(s, GeometryError)),
    )


def _stacked(frames: Sequence[Frame], phase: str, name: str) -> Stack | GeometryError:
    try:
        return stacked(frames, f"{name}, {phase}" if phase else name)
    except GeometryError as error:
        return error


def _notes(first: Frame, stacks: list[Stack], n_copies: int, modality: str) -> list[str]:
    worst = max((stack.deviation_mm for stack in stacks), default=0.0)
    tilt = max((stack.tilt_degrees for stack in stacks), default=0.0)
    is_ct, padding = modality == "CT", declared_padding(first)
    is_inverse = text(first.file.header, "PhotometricInterpretation") == "MONOCHROME1"
    is_kept = is_ct and padding is not None and is_tissue(first, padding)
    inverse = "Hounsfield units do not depend on it and are left as they are"
    inverse = inverse if is_ct else "grey values inverted, so that large is bright"
    notes = (
        (n_copies > 0, f"identical copies of slices left out: {n_copies}"),
        (worst > _WORTH_TELLING_MM, f"slices lie up to {worst:.2g} mm off the even grid"),
        (tilt > 0, f"gantry tilt of {tilt:.1f} degrees, resampled to an upright grid"),
        (is_inverse, f"MONOCHROME1: {inverse}"),
        (is_kept, "the declared padding value is also that of a tissue and is left as it is"),
    )
    return [note for is_so, note in notes if is_so]


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


def patient_of(file: ImageFile) -> str:
    """What tells patients apart, to be compared and never shown."""
    return text(file.header, "PatientID") or text(file.header, "PatientName")


def check_frames(frames: list[Frame], path: Path, modality: str) -> None:
    """Check that frames form a volume, and that their headers tell what the values mean.

    Raises:
        LeansegError: Naming the file that does not fit.
    """
    counts = Counter(frame.file for frame in frames)
    patients = {patient_of(file) for file in counts}
    if len(patients) > 1:
        msg = f"{path}: the slices of one series belong to {len(patients)} patients; sort the files"
        raise FileFormatError(f"{msg} into one folder per patient")
    n_parts = Counter(text(file.header, "ConcatenationUID") for file in counts)
    for file, count in counts.items():
        fault = pixel_fault(file) or _share_fault(file, count, n_parts)
        if fault is not None:
            raise FileFormatError(f"{file.shown}: {fault}; copy or export it again")
    for frame in frames:
        check_frame(frame)
    _require_units(frames, modality)
    for frame in frames[1:]:
        _require_alike(frame, frames[0])


def _share_fault(file: ImageFile, n_described: int, n_parts: Mapping[str, int]) -> str | None:
    """Whether all frames of a file are described, and all parts there of an image in several."""
    if file.n_frames != n_described:
        return f"says {file.n_frames} frames, describes {n_described}"
    uid = text(file.header, "ConcatenationUID")
    total = integer(file.header, "InConcatenationTotalNumber")
    if uid and total and n_parts[uid] != total:
        return (
            f"its InConcatenationTotalNumber is {total}, but {n_parts[uid]} of these parts are here"
        )
    return None


def _require_units(frames: Sequence[Frame], modality: str) -> None:
    """Rescale values in all slices or none; in CT and PET in all, in CT to Hounsfield units."""
    without = [frame for frame in frames if frame.units is None]
    mixed = len(without) < len(frames)
    if without and (mixed or modality in ("CT", "PT")):
        why = "other slices have" if mixed else f"every {modality} has"
        msg = f"{without[0].name}: has no RescaleSlope and RescaleIntercept, which {why}; "
        raise FileFormatError(f"{msg}export the series again")
    for frame in frames if modality == "CT" else ():
        units = (frame.units or "")[:16]
        if units.upper() not in _HOUNSFIELD:
            msg = f"{frame.name}: its RescaleType is {units}, so its values are no Hounsfield units"
            raise FileFormatError(f"{msg}; choose another series")


def _require_alike(frame: Frame, first: Frame) -> None:
    """Same modality, patient coordinates, directions, size and pixel spacing in all slices."""
    file, other = frame.file, first.file
    same_spacing = np.allclose(frame.spacing, first.spacing, rtol=1e-4, atol=0)
    keywords = ("Modality", "FrameOfReferenceUID")
    differing = [k for k in keywords if text(file.header, k) != text(other.header, k)]
    if differing:
        fault = f"has another {differing[0]} than {other.shown.name}"
    elif not same_directions(frame, first):
        fault = f"points in another direction than {other.shown.name}"
    elif file.size != other.size or not same_spacing:
        fault = f"has {_pixels(frame)}, but {other.shown.name} {_pixels(first)}"
    else:
        return
    raise GeometryError(f"{file.shown}: {fault}; sort the files into one folder per scan")


def _pixels(frame: Frame) -> str:
    return "{} x {} pixels of {:g} x {:g} mm".format(*frame.file.size, *frame.spacing)
