"""Reading a series as a volume."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes.dicom.find import find_series
from leanseg.volumes.dicom.geometry import Stack
from leanseg.volumes.dicom.kinds import REFUSALS, VOLUME
from leanseg.volumes.dicom.series import Inventory, Series
from leanseg.volumes.dicom.tilt import upright
from leanseg.volumes.dicom.voxels import outside_value, read_voxels
from leanseg.volumes.volume import Volume


def choose_series(
    inventory: Inventory, wanted: str | int | None = None, modality: str | None = None
) -> Series:
    """The series that the user wants, or the one that fits.

    Args:
        inventory: From `find_series`.
        wanted: SeriesNumber, description (or a part of it that no other has) or UID; None for
            the scan with most slices.
        modality: Without a choice, only series of it are considered.

    Raises:
        FileFormatError: If none fits, or several fit equally well, listing them.
    """
    if wanted is not None:
        return _wanted(inventory, str(wanted).strip())
    scans = [series for series in inventory.series if series.kind == VOLUME]
    if not scans:
        raise _no_scan(inventory)
    fitting = [s for s in scans if modality is None or s.modality.upper() == modality.upper()]
    if not fitting:
        msg = f"{inventory.path}: holds no {modality} scan but {_listed(scans)}; choose a folder"
        raise FileFormatError(msg)
    n_patients = len({series.patient for series in fitting})
    if n_patients > 1:
        msg = (
            f"{inventory.path}: holds scans of {n_patients} patients; give the folder of one of "
            f"them, or choose a series: {_listed(fitting)}"
        )
        raise FileFormatError(msg)
    most = max(series.n_slices for series in fitting)
    best = [series for series in fitting if series.n_slices == most]
    if len(best) > 1:
        msg = f"{inventory.path}: {len(best)} scans fit equally well; choose one of {_listed(best)}"
        raise FileFormatError(msg)
    return best[0]


def _wanted(inventory: Inventory, wanted: str) -> Series:
    lowered = wanted.lower()
    tests = (
        lambda series: wanted == series.uid,
        lambda series: wanted == str(series.number),
        lambda series: lowered == series.description.lower(),
        lambda series: lowered in series.description.lower(),
    )
    for test in tests:
        found = [series for series in inventory.series if test(series)] if wanted else []
        if len(found) == 1:
            return found[0]
        if found:
            msg = (
                f"{inventory.path}: {len(found)} series match {wanted!r}: {_listed(found)}; "
                "choose one by another property, or by its UID"
            )
            raise FileFormatError(msg)
    msg = f"{inventory.path}: no series matches {wanted!r}; it has {_listed(inventory.series)}"
    raise FileFormatError(msg)


def _listed(series: Iterable[Series]) -> str:
    return ", ".join(one.name for one in series)


def _no_scan(inventory: Inventory) -> LeansegError:
    if not inventory.series:
        return FileFormatError(f"{inventory.skipped[0]}; copy or export it again")
    kinds = dict.fromkeys(series.kind for series in inventory.series)
    found = "; ".join(f"{kind}: {REFUSALS[kind]}" if kind in REFUSALS else kind for kind in kinds)
    return FileFormatError(f"{inventory.path}: holds no scan ({found}); give the folder of a scan")


def read_series(
    source: str | Path | Series,
    series: str | int | None = None,
    *,
    modality: str | None = None,
    phase: int | None = None,
    fill_missing: bool = False,
) -> Volume:
    """Read a DICOM series.

    Args:
        source: A folder, zip file, one multi-frame file, or a series found before.
        series: Which one, as in `choose_series`.
        modality: Take only a series of this modality, unless `series` chooses.
        phase: Number of the phase (from 1, in the order of `Series.phases`).
        fill_missing: Interpolate missing slices linearly instead of refusing.

    Returns:
        Voxels (column, row, slice), slices ascending along row x column direction; int16 where
        the rescaled values are whole and fit, else float32. CT is in Hounsfield units.

    Raises:
        FileFormatError: If a file is damaged, nothing fits, or several series fit.
        GeometryError: If the slices form no regular grid, or some are missing.
        MissingDependencyError: If a package is needed to read the files.
    """
    if isinstance(source, Series):
        chosen = source
    else:
        inventory = find_series(source)
        chosen = choose_series(inventory, series, modality)
        require_whole(inventory, chosen)
    stack = chosen.stack(phase)
    if stack.missing and not fill_missing:
        raise _missing(chosen, stack)
    voxels, affine = read_voxels(stack, chosen.modality), stack.affine_ras
    if stack.tilt_degrees:
        voxels, affine = upright(voxels, affine, outside_value(voxels, chosen.modality))
    return Volume(array=voxels.transpose(2, 1, 0), affine=affine, path=chosen.path)


def require_whole(inventory: Inventory, chosen: Series) -> None:
    """Refuse where a damaged file beside the series may be one of its slices."""
    folders = {file.parent for file in chosen.files}
    for file, reason in inventory.damaged:
        if file.parent in folders:
            msg = f"{file}: {reason}; it may be a slice of the series, copy it again or remove it"
            raise FileFormatError(msg)


def _missing(series: Series, stack: Stack) -> GeometryError:
    shown = ", ".join(f"slice {k + 1} ({stack.place_name(k)})" for k in stack.missing[:5])
    more = f" and {len(stack.missing) - 5} more" if len(stack.missing) > 5 else ""
    msg = (
        f"{series.path}: of {stack.shape[2]} slices in {series.name} these are missing: {shown}"
        f"{more}; copy them again, or allow filling them by interpolation"
    )
    return GeometryError(msg)
