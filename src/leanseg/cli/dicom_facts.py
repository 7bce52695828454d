"""What `leanseg info` says about DICOM: every series of a folder, and the chosen one closely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanseg.errors import FileFormatError, LeansegError

if TYPE_CHECKING:
    from leanseg.volumes.dicom import Inventory, Series

_IDENTIFIERS = (
    ("patient", "PatientName"),
    ("patient ID", "PatientID"),
    ("birth date", "PatientBirthDate"),
    ("study date", "StudyDate"),
    ("accession number", "AccessionNumber"),
    ("study UID", "StudyInstanceUID"),
    ("series UID", "SeriesInstanceUID"),
    ("frame of reference", "FrameOfReferenceUID"),
)
# Of a series, for programs: none of them identifies a patient.
_FIELDS = (
    "number",
    "description",
    "modality",
    "kind",
    "shape",
    "spacing_mm",
    "thickness_mm",
    "orientation",
    "phases",
    "tilt_degrees",
    "missing",
    "n_copies",
    "transfer_syntax",
    "rescale",
    "padding",
    "notes",
)


def dicom_facts(path: Path, wanted: str | None, show_identifiers: bool) -> dict[str, Any]:
    """Facts by name; identifiers of the patient only where they are asked for.

    Raises:
        LeansegError: If there is no DICOM, or no such series.
    """
    from leanseg.volumes.dicom import choose_series, find_series

    inventory = find_series(path)
    facts: dict[str, Any] = {"DICOM": str(path), "series": [_line(s) for s in inventory.series]}
    if inventory.skipped:
        facts["not read"] = list(inventory.skipped)
    try:
        chosen = choose_series(inventory, wanted)
    except FileFormatError as error:
        if wanted is not None or not inventory.series:
            raise
        facts["which series"] = _without(path, error)
        return facts
    facts.update(_details(inventory, chosen))
    if show_identifiers:
        facts.update(_identifiers(chosen))
    return facts


def dicom_json(path: Path, wanted: str | None, show_identifiers: bool) -> dict[str, Any]:
    """The same for programs: every series with all that is known of it.

    Raises:
        LeansegError: As `dicom_facts`.
    """
    from leanseg.volumes.dicom import choose_series, find_series

    inventory = find_series(path)
    try:
        chosen: Series | None = choose_series(inventory, wanted)
    except FileFormatError:
        if wanted is not None or not inventory.series:
            raise
        chosen = None
    return {
        "dicom": str(path),
        "series": [
            {
                **{name: getattr(series, name) for name in _FIELDS},
                "n_files": len(series.files),
                "problem": str(series.problem) if series.problem else None,
                "chosen": series is chosen,
                **({"identifiers": _identifiers(series)} if show_identifiers else {}),
            }
            for series in inventory.series
        ],
        "not_read": list(inventory.skipped),
    }


def _line(series: Series) -> str:
    return series.name if series.problem is None else f"{series.name}: cannot be read"


def _without(path: Path, error: LeansegError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _details(inventory: Inventory, series: Series) -> dict[str, Any]:
    facts: dict[str, Any] = {"chosen": series.name}
    if series.shape is not None and series.spacing_mm is not None:
        facts["shape"] = " x ".join(str(n) for n in series.shape)
        facts["spacing (mm)"] = " x ".join(f"{value:.4g}" for value in series.spacing_mm)
        step = series.spacing_mm[2]
        if series.thickness_mm is not None and abs(series.thickness_mm - step) > 1e-3:
            facts["slice thickness (mm)"] = (
                f"{series.thickness_mm:g} is declared, but positions are {step:.4g} apart: "
                "the positions count"
            )
    optional: dict[str, Any] = {
        "orientation": series.orientation,
        "phases": [f"{number} {name}" for number, name in enumerate(series.phases, start=1)],
        "gantry tilt": f"{series.tilt_degrees:.2f} degrees, resampled to an upright grid"
        if series.tilt_degrees
        else "",
        "missing slices": list(series.missing),
        "repeated slices": f"{series.n_copies} identical copies are left out"
        if series.n_copies
        else "",
        "stored as": series.transfer_syntax,
        "rescale": series.rescale,
        "padding": series.padding,
        "notes": list(series.notes),
        "problem": _without(inventory.path, series.problem) if series.problem else "",
    }
    facts.update({name: value for name, value in optional.items() if value})
    return facts


def _identifiers(series: Series) -> dict[str, Any]:
    from pydicom import dcmread

    from leanseg.volumes import unpacked

    header = dcmread(unpacked(series.files[0]), stop_before_pixels=True, force=True)
    found = {name: str(header.get(keyword, "") or "") for name, keyword in _IDENTIFIERS}
    return {name: value for name, value in found.items() if value}
