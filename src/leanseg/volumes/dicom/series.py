"""What a folder holds: series and their descriptions, without anything that names a patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes.dicom.geometry import Stack
from leanseg.volumes.dicom.kinds import REFUSALS, VOLUME


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
        shape: Columns, rows and slices of the volume that reading (the first phase) gives,
            missing slices included; None for no scan.
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
        affine: (4, 4) to RAS+ mm of the volume that reading gives; None for no scan.
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
    affine: NDArray[np.float64] | None = field(default=None, repr=False)
    stacks: tuple[Stack | GeometryError, ...] = field(default=(), repr=False)
    patient: str = field(default="", repr=False)

    @property
    def n_slices(self) -> int:
        """Slices that are there, of all phases together; files where it is no scan."""
        regular = [stack for stack in self.stacks if isinstance(stack, Stack)]
        return sum(len(stack.frames) for stack in regular) or len(self.files)

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

    def headers(self, phase: int | None = None) -> tuple[Any, ...]:
        """The whole headers of the files of one phase, without pixel data, in slice order.

        Args:
            phase: Number of the phase, from 1; None where there is one alone.

        Returns:
            pydicom Datasets: one per slice, or one per file where files have many frames.

        Raises:
            LeansegError: If the series cannot be read, or there is no such phase.
        """
        from pydicom import dcmread

        files = dict.fromkeys(frame.file.path for frame in self.stack(phase).frames)
        return tuple(dcmread(path, stop_before_pixels=True, force=True) for path in files)


@dataclass(frozen=True, eq=False)
class Inventory:
    """What a folder or zip file holds.

    Attributes:
        path: As the user gave it.
        series: In order of study, number and description; scans and others.
        skipped: Files that could not be read, with the reason.
        damaged: Those of them that are DICOM and may have been slices: file and reason.
    """

    path: Path
    series: tuple[Series, ...]
    skipped: tuple[str, ...] = ()
    damaged: tuple[tuple[Path, str], ...] = ()
