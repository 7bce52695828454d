"""What must hold of the files of one series before they are taken for a scan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.geometry import check_frame, same_directions
from leanseg.volumes.dicom.pixels import pixel_fault
from leanseg.volumes.dicom.values import text

# So many slices in other directions than the rest are localizers that do not say so.
_LARGEST_STRAYS, _STRAY_SHARE = 3, 0.25


def patient_of(file: ImageFile) -> str:
    """What tells patients apart, to be compared and never shown."""
    return text(file.header, "PatientID") or text(file.header, "PatientName")


def checked_frames(frames: list[Frame], path: Path) -> tuple[list[Frame], list[str]]:
    """The frames that form a volume, and notes on those left out.

    Raises:
        LeansegError: Naming the file that does not fit.
    """
    counts = Counter(frame.file for frame in frames)
    patients = {patient_of(file) for file in counts}
    if len(patients) > 1:
        msg = (
            f"{path}: the slices of one series belong to {len(patients)} patients; "
            "sort the files into one folder per patient"
        )
        raise FileFormatError(msg)
    for file in counts:
        fault = pixel_fault(file)
        if fault is not None:
            raise FileFormatError(f"{file.shown}: {fault}; copy or export it again")
    for frame in frames:
        check_frame(frame)
    for file, count in counts.items():
        if file.n_frames != count:
            msg = f"{file.shown}: says {file.n_frames} frames, describes {count}; export it again"
            raise FileFormatError(msg)
    frames, notes = _without_strays(frames, path)
    for frame in frames[1:]:
        _require_alike(frame, frames[0])
    return frames, notes


def _without_strays(frames: list[Frame], path: Path) -> tuple[list[Frame], list[str]]:
    directions: list[list[Frame]] = []
    for frame in frames:
        alike = next((group for group in directions if same_directions(group[0], frame)), None)
        if alike is None:
            directions.append([frame])
        else:
            alike.append(frame)
    main, *others = sorted(directions, key=len, reverse=True)
    n_strays = sum(map(len, others))
    if n_strays == 0:
        return main, []
    if n_strays <= _LARGEST_STRAYS and n_strays <= _STRAY_SHARE * len(main):
        one = "1 image in another direction left out as a localizer"
        many = f"{n_strays} images in other directions left out as localizers"
        return main, [one if n_strays == 1 else many]
    msg = (
        f"{path}: the slices of one series point in {len(directions)} directions (for example "
        f"{main[0].file.shown.name} and {others[0][0].file.shown.name}); "
        "sort them into one folder per direction"
    )
    raise GeometryError(msg)


def _require_alike(frame: Frame, first: Frame) -> None:
    """Same size and pixel spacing in all slices."""
    name, other = frame.file.shown, first.file.shown.name
    ours, theirs = first.file.size, frame.file.size
    if ours != theirs:
        msg = (
            f"{name}: has {theirs[0]} x {theirs[1]} pixels, but {other} has {ours[0]} x {ours[1]}; "
            "keep one scan in a series"
        )
        raise GeometryError(msg)
    if not np.allclose(frame.spacing, first.spacing, rtol=1e-4, atol=0):
        msg = (
            f"{name}: its pixel spacing of {frame.spacing[0]:g} x {frame.spacing[1]:g} mm is not "
            f"that of {other}, {first.spacing[0]:g} x {first.spacing[1]:g} mm; "
            "keep one scan in a series"
        )
        raise GeometryError(msg)
