"""Series: the files of a folder sorted into scans, each described without reading its pixels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes.archive import unpacked
from leanseg.volumes.dicom.files import (
    ImageFile,
    UnreadableError,
    candidates,
    read_header,
    require_pydicom,
)
from leanseg.volumes.dicom.frames import Frame, frames_of, n_frames
from leanseg.volumes.dicom.geometry import (
    Stack,
    check_frame,
    same_directions,
    size_of,
    stacked,
)
from leanseg.volumes.dicom.kinds import VOLUME, kind_of
from leanseg.volumes.dicom.phases import separated
from leanseg.volumes.dicom.pixels import pixel_fault, stored_type, syntax_name
from leanseg.volumes.dicom.values import decoded, has, integer, number, text

# So many slices in other directions than the rest are localizers that do not say so.
_LARGEST_STRAYS, _STRAY_SHARE = 3, 0.25


@dataclass(frozen=True, eq=False)
class Series:
    """One series of a folder, as its headers describe it. No field identifies a patient.

    Attributes:
        path: What the user gave, a folder or zip file.
        uid: SeriesInstanceUID, "" where the files have none.
        number: SeriesNumber.
        description: SeriesDescription.
        modality: Such as "CT" or "MR".
        kind: "volume" for a scan; else what it is, such as "localizer" or "contours".
        files: Where the files lie for the user, in slice order for a scan.
        shape: Columns, rows and slices of one phase, missing ones included; None for no scan.
        spacing_mm: Along those axes; the third from positions.
        thickness_mm: SliceThickness as declared.
        orientation: Directions in which the axes increase, such as "LPS".
        phases: Names of the phases, such as "echo 1"; empty where there is one.
        tilt_degrees: Gantry tilt, 0 if there is none.
        missing: Slices that are not there, by number (from 1) and position.
        n_copies: Identical copies of slices that were left out.
        transfer_syntax: By name.
        rescale: How stored values become real ones.
        padding: The declared padding value, stored and rescaled.
        notes: What else was found, in sentences.
        problem: Why the series cannot be read, None if it can.
    """

    path: Path
    uid: str
    number: int | None
    description: str
    modality: str
    kind: str
    files: tuple[Path, ...]
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    thickness_mm: float | None = None
    orientation: str | None = None
    phases: tuple[str, ...] = ()
    tilt_degrees: float = 0.0
    missing: tuple[str, ...] = ()
    n_copies: int = 0
    transfer_syntax: str = ""
    rescale: str = ""
    padding: str = ""
    notes: tuple[str, ...] = ()
    problem: LeansegError | None = None
    stacks: tuple[Stack, ...] = field(default=(), repr=False)
    patient: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """How the series is named to users: "series 4 (CT, portal venous, 78 slices)"."""
        number_ = "without a number" if self.number is None else f"{self.number}"
        count = sum(len(stack.frames) for stack in self.stacks) or len(self.files)
        images = "slices" if self.kind == VOLUME else f"files, {self.kind}"
        parts = (self.modality, self.description, f"{count} {images}")
        return f"series {number_} ({', '.join(part for part in parts if part)})"

    def headers(self, phase: int | None = None) -> tuple[Any, ...]:
        """The files' whole headers, without pixel data, in slice order.

        Args:
            phase: Number of the phase, from 1; None for the first.

        Returns:
            pydicom Datasets: one per slice, or one per file where files have many frames.

        Raises:
            LeansegError: If the series cannot be read.
        """
        from pydicom import dcmread

        if self.problem is not None:
            raise self.problem
        frames = self.stacks[(phase or 1) - 1].frames
        files = dict.fromkeys(frame.file.path for frame in frames)
        return tuple(dcmread(path, stop_before_pixels=True, force=True) for path in files)


@dataclass(frozen=True, eq=False)
class Inventory:
    """What a folder or zip file holds.

    Attributes:
        path: As the user gave it.
        series: In order of study, number and description; scans and others.
        skipped: Files that could not be read, with the reason.
        damaged: Those of them that are DICOM and may have been slices.
    """

    path: Path
    series: tuple[Series, ...]
    skipped: tuple[str, ...] = ()
    damaged: tuple[Path, ...] = ()


def find_series(path: str | Path) -> Inventory:
    """Look through a folder, a zip file or one file for DICOM series; no pixels are read.

    Args:
        path: Files may have any name and depth; others beside them are passed over.

    Raises:
        FileFormatError: If there is no such path, or no DICOM file in it.
        MissingDependencyError: If pydicom is not installed.
    """
    require_pydicom()
    given, place = Path(path), unpacked(Path(path))
    if not place.exists():
        msg = f"{given}: there is no such file or folder; check the name"
        raise FileFormatError(msg)
    paths = list(candidates(place)) if place.is_dir() else [place]
    files: list[ImageFile] = []
    skipped: list[tuple[Path, str]] = []
    for file in paths:
        shown = given / file.relative_to(place) if place.is_dir() else given
        try:
            found = read_header(file, shown)
        except UnreadableError as error:
            skipped.append((shown, str(error)))
            continue
        if found is not None:
            files.append(found)
    if not files and not skipped:
        msg = (
            f"{given}: is a folder that holds no DICOM files; name a volume file in it, or the "
            "folder of a DICOM series"
            if place.is_dir()
            else f"{given}: is not a DICOM file; name one, or a folder with a DICOM series"
        )
        raise FileFormatError(msg)
    return Inventory(
        path=given,
        series=tuple(sorted(_grouped(given, files), key=_order)),
        skipped=tuple(f"{shown}: {reason}" for shown, reason in skipped),
        damaged=tuple(shown for shown, _ in skipped),
    )


def _order(series: Series) -> tuple[int, str, str]:
    return (series.number if series.number is not None else 1 << 31, series.description, series.uid)


def _grouped(given: Path, files: Sequence[ImageFile]) -> list[Series]:
    groups: dict[tuple[str, ...], list[ImageFile]] = defaultdict(list)
    for file in files:
        groups[_series_key(file)].append(file)
    return [_series(given, group) for group in groups.values()]


def _series_key(file: ImageFile) -> tuple[str, ...]:
    uid = text(file.header, "SeriesInstanceUID")
    if uid:
        return (uid,)
    # Some tools remove the UID: then what else is the same in all slices of a series.
    keywords = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "SeriesDescription")
    words = (text(file.header, keyword) for keyword in (*keywords, "Modality"))
    return ("", str(file.path.parent), *words)


def _series(given: Path, files: list[ImageFile]) -> Series:
    """Describe one group of files, whatever state they are in."""
    frames_by_file = [frames_of(file) for file in files]
    kinds = [kind_of(file, frames) for file, frames in zip(files, frames_by_file, strict=True)]
    kind = VOLUME if VOLUME in kinds else Counter(kinds).most_common(1)[0][0]
    chosen = [n for n, found in enumerate(kinds) if found == kind]
    header = files[chosen[0]].header
    common: dict[str, Any] = {
        "path": given,
        "uid": text(header, "SeriesInstanceUID"),
        "number": integer(header, "SeriesNumber"),
        "description": decoded(header, "SeriesDescription"),
        "modality": text(header, "Modality"),
        "patient": text(header, "PatientID") or text(header, "PatientName"),
        "transfer_syntax": syntax_name(files[chosen[0]].syntax),
    }
    frames = [frame for n in chosen for frame in frames_by_file[n]]
    notes = [
        f"{count} {other} image(s) of the series left out"
        for other, count in Counter(found for found in kinds if found != kind).items()
    ]
    if kind != VOLUME or len(frames) < 2:
        shown = tuple(files[n].shown for n in chosen)
        kind = "single slice" if kind == VOLUME else kind
        return Series(**common, kind=kind, files=shown, notes=tuple(notes))
    return _volume_series([files[n] for n in chosen], frames, notes, common)


def _volume_series(
    files: list[ImageFile], frames: list[Frame], notes: list[str], common: dict[str, Any]
) -> Series:
    try:
        frames, strays = _checked(files, frames, common["path"])
        notes += strays
        phases, n_copies = separated(frames, _named(common))
        stacks = tuple(stacked(phase.frames, _named(common)) for phase in phases)
    except LeansegError as error:
        shown = tuple(file.shown for file in files)
        return Series(**common, kind=VOLUME, files=shown, notes=tuple(notes), problem=error)
    first = stacks[0]
    if n_copies:
        notes.append(f"{n_copies} identical copies of slices left out")
    if max(stack.deviation_mm for stack in stacks) > 1e-3:
        worst = max(stack.deviation_mm for stack in stacks)
        notes.append(f"slices lie up to {worst:.2g} mm off the even grid")
    if first.tilt_degrees:
        notes.append(f"gantry tilt of {first.tilt_degrees:.1f} degrees")
    if text(files[0].header, "PhotometricInterpretation") == "MONOCHROME1":
        notes.append("stored as MONOCHROME1")
    return Series(
        **common,
        kind=VOLUME,
        files=tuple(dict.fromkeys(f.file.shown for stack in stacks for f in stack.frames)),
        shape=first.shape,
        spacing_mm=_spacing(first),
        thickness_mm=first.frames[0].thickness,
        orientation=_orientation(first),
        phases=tuple(phase.name for phase in phases) if len(phases) > 1 else (),
        tilt_degrees=first.tilt_degrees,
        missing=tuple(f"slice {k + 1} ({first.place_name(k)})" for k in first.missing),
        n_copies=n_copies,
        rescale=_rescale(frames),
        padding=_padding(first.frames[0]),
        notes=tuple(notes),
        stacks=stacks,
    )


def _named(common: dict[str, Any]) -> str:
    number_ = common["number"]
    return str(common["path"]) if number_ is None else f"{common['path']}, series {number_}"


def _checked(
    files: list[ImageFile], frames: list[Frame], path: Path
) -> tuple[list[Frame], list[str]]:
    """The frames that form a volume, and notes on those left out.

    Raises:
        LeansegError: Naming the file that does not fit.
    """
    patients = {text(f.header, "PatientID") or text(f.header, "PatientName") for f in files}
    if len(patients) > 1:
        msg = (
            f"{path}: the slices of one series belong to {len(patients)} patients; "
            "sort the files into one folder per patient"
        )
        raise FileFormatError(msg)
    for file in files:
        fault = pixel_fault(file)
        if fault is not None:
            raise FileFormatError(f"{file.shown}: {fault}; copy or export it again")
    for frame in frames:
        check_frame(frame)
    counts = Counter(frame.file for frame in frames)
    for file, count in counts.items():
        if n_frames(file) != count:
            msg = f"{file.shown}: says {n_frames(file)} frames, describes {count}; export it again"
            raise FileFormatError(msg)
    frames, notes = _without_strays(frames, path)
    _require_alike(frames)
    return frames, notes


def _without_strays(frames: list[Frame], path: Path) -> tuple[list[Frame], list[str]]:
    directions: list[list[Frame]] = []
    for frame in frames:
        alike = next((group for group in directions if same_directions(group[0], frame)), None)
        if alike is None:
            directions.append([frame])
        else:
            alike.append(frame)
    directions.sort(key=len, reverse=True)
    main, others = directions[0], directions[1:]
    n_strays = sum(map(len, others))
    if n_strays == 0:
        return main, []
    if n_strays <= _LARGEST_STRAYS and n_strays <= _STRAY_SHARE * len(main):
        return main, [f"{n_strays} image(s) in another direction left out as localizers"]
    msg = (
        f"{path}: the slices of one series point in {len(directions)} directions (for example "
        f"{main[0].file.shown.name} and {others[0][0].file.shown.name}); "
        "sort them into one folder per direction"
    )
    raise GeometryError(msg)


def _require_alike(frames: list[Frame]) -> None:
    """Same size, pixel spacing and type of values in all slices."""
    first = frames[0]
    for frame in frames[1:]:
        if frame.file is not first.file:
            ours, theirs = size_of(first.file), size_of(frame.file)
            if ours != theirs:
                msg = (
                    f"{frame.file.shown}: has {theirs[0]} x {theirs[1]} pixels, but "
                    f"{first.file.shown.name} has {ours[0]} x {ours[1]}; keep one scan in a series"
                )
                raise GeometryError(msg)
        if not np.allclose(frame.spacing, first.spacing, rtol=1e-4, atol=0):
            msg = (
                f"{frame.file.shown}: its pixel spacing of {frame.spacing[0]:g} x "
                f"{frame.spacing[1]:g} mm is not that of {first.file.shown.name}, "
                f"{first.spacing[0]:g} x {first.spacing[1]:g} mm; keep one scan in a series"
            )
            raise GeometryError(msg)


def _spacing(stack: Stack) -> tuple[float, float, float]:
    i, j, k = np.linalg.norm(stack.affine[:3, :3], axis=0)
    return float(i), float(j), float(k)


def _orientation(stack: Stack) -> str:
    from nibabel.orientations import aff2axcodes

    return "".join(aff2axcodes(stack.affine_ras))


def _rescale(frames: Sequence[Frame]) -> str:
    found = {(frame.slope, frame.intercept) for frame in frames}
    if len(found) > 1:
        return f"differs between slices ({len(found)} pairs of slope and intercept)"
    slope, intercept = next(iter(found))
    return f"{slope:g} x stored value {intercept:+g}"


def _padding(frame: Frame) -> str:
    header = frame.file.header
    dtype = stored_type(frame.file)
    if not has(header, "PixelPaddingValue") or dtype is None:
        return ""
    value = number(header, "PixelPaddingValue")
    if value is None:
        return ""
    return f"{value:g} stored, {value * frame.slope + frame.intercept:g} rescaled"
