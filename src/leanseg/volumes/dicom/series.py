"""A series: what kind it is, and its description without anything that names a patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes.axes import axis_codes
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.geometry import Stack
from leanseg.volumes.dicom.values import integer, items, table, text, texts

VOLUME, LOCALIZER, CAPTURE = "volume", "localizer", "secondary capture"
SEGMENTATION, CONTOURS = "segmentation", "contours"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Kinds by SOP class and by modality, and why a series of one is no scan, to follow "is a ...".
_KINDS = table("kinds.csv")
_BY_CLASS = {uid: one["kind"] for one in _KINDS for uid in one["classes"].split("|") if uid}
_BY_MODALITY = {m: one["kind"] for one in _KINDS for m in one["modalities"].split("|") if m}
REFUSALS = {one["kind"]: one["refusal"] for one in _KINDS if one["refusal"]}
_COLOURS = ("PALETTE", "RGB", "YBR", "ARGB", "CMYK", "HSV")


def kind_of(file: ImageFile, frames: tuple[Frame, ...]) -> str:
    """What a file is, `VOLUME` for slices of a scan."""
    header = file.header
    of_class = _BY_CLASS.get(text(header, "SOPClassUID").removeprefix(_STORAGE))
    kind = _BY_MODALITY.get(text(header, "Modality").upper(), of_class)
    if kind:
        return kind
    if not file.offset:
        return "no image"
    photometric = text(header, "PhotometricInterpretation")
    if integer(header, "SamplesPerPixel") not in (None, 1) or photometric.startswith(_COLOURS):
        return "colour image"
    if "MOSAIC" in texts(header, "ImageType"):
        return "mosaic"
    if frames[0].localizer:
        return LOCALIZER
    placed = any(frame.position or frame.axes for frame in frames)
    enhanced = bool(items(header, "PerFrameFunctionalGroupsSequence"))
    return VOLUME if placed or enhanced else "projection"


@dataclass(frozen=True, eq=False)
class Series:
    """One series of a folder, as its headers describe it. No field shown identifies a patient.

    Attributes:
        path: What the user gave, a folder or zip file.
        uid: SeriesInstanceUID, "" where the files have none.
        number: SeriesNumber.
        description: SeriesDescription.
        modality: Such as "CT" or "MR".
        kind: "volume" for a scan; else what it is, such as "localizer" or "contours".
        files: Where the files lie for the user, in slice order for a scan.
        thickness_mm: SliceThickness as declared.
        phases: Names of the phases, such as "echo 1"; empty where there is one.
        transfer_syntax: By name.
        rescale: How stored values become real ones.
        padding: The declared padding value, stored and rescaled.
        notes: What else was found, in sentences.
        problem: Why the series cannot be read, None if it can.
        stacks: The slices of each phase, or why they form no grid.
        patient: Tells series of different patients apart; never shown.
    """

    path: Path
    uid: str
    number: int | None
    description: str
    modality: str
    kind: str
    files: tuple[Path, ...]
    thickness_mm: float | None = None
    phases: tuple[str, ...] = ()
    transfer_syntax: str = ""
    rescale: str = ""
    padding: str = ""
    notes: tuple[str, ...] = ()
    problem: LeansegError | None = None
    stacks: tuple[Stack | GeometryError, ...] = field(default=(), repr=False)
    patient: str = field(default="", repr=False)

    @property
    def _regular(self) -> list[Stack]:
        return [stack for stack in self.stacks if isinstance(stack, Stack)]

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Columns, rows and slices of the volume that reading the first phase gives.

        Missing slices are included; None for what is no scan.
        """
        return self._regular[0].grid[0] if self._regular else None

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """(4, 4) from voxels of that volume to RAS+ mm."""
        return self._regular[0].grid[1] if self._regular else None

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Along its axes; the third from positions."""
        if self.affine is None:
            return None
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def orientation(self) -> str | None:
        """Directions in which its axes increase, such as "LPS"."""
        return None if self.affine is None else axis_codes(self.affine)

    @property
    def tilt_degrees(self) -> float:
        """Gantry tilt, 0 if there is none."""
        return self._regular[0].tilt_degrees if self._regular else 0.0

    @property
    def missing(self) -> tuple[str, ...]:
        """Slices that are not there, by number (from 1) and position."""
        return self._regular[0].missing_names if self._regular else ()

    @property
    def n_slices(self) -> int:
        """Slices that are there, of all phases together; files where it is no scan."""
        return sum(len(stack.frames) for stack in self._regular) or len(self.files)

    @property
    def name(self) -> str:
        """How the series is named to users: "series 4 (CT, portal venous, 78 slices)"."""
        number = "without a number" if self.number is None else f"{self.number}"
        count = f"{self.n_slices} {'slices' if self.kind == VOLUME else f'files, {self.kind}'}"
        parts = (self.modality, self.description, count)
        return f"series {number} ({', '.join(part for part in parts if part)})"

    def stack(self, phase: int | None = None) -> Stack:
        """The slices of one phase.

        Args:
            phase: Number of the phase, from 1; None where there is one alone.

        Raises:
            LeansegError: If the series cannot be read, or there is no such phase.
        """
        if self.kind != VOLUME:
            reason = REFUSALS.get(self.kind, "not a scan")
            msg = f"{self.path}: {self.name} is no scan ({reason}); choose another series"
            raise FileFormatError(msg)
        if self.problem is not None:
            raise self.problem
        count = len(self.stacks)
        listed = ", ".join(f"{n}: {name}" for n, name in enumerate(self.phases, start=1))
        if phase is None and count > 1:
            msg = f"{self.path}: {self.name} has {count} phases; choose one by number ({listed})"
            raise GeometryError(msg)
        if phase is not None and not 1 <= phase <= count:
            msg = f"{self.path}: {self.name} has no phase {phase}; it has {listed or 'only one'}"
            raise GeometryError(msg)
        stack = self.stacks[(phase or 1) - 1]
        if isinstance(stack, GeometryError):
            raise stack
        return stack
