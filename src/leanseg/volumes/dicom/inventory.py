"""What a folder holds: its files sorted into series, their headers read once, one to choose."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from leanseg.errors import FileFormatError, LeansegError
from leanseg.volumes.archive import unpacked
from leanseg.volumes.dicom.describe import described
from leanseg.volumes.dicom.files import (
    ImageFile,
    UnreadableError,
    candidates,
    folder_of_index,
    named,
    read_header,
    require_package,
)
from leanseg.volumes.dicom.series import REFUSALS, VOLUME, Series
from leanseg.volumes.dicom.values import text

# Folders of more files hold many patients; their headers would fill memory for little.
_MOST_FILES_KEPT = 8192
# A file changed so recently may change again without a new time: clocks of file systems tick.
_TICK_NS = 20_000_000


@dataclass(frozen=True, eq=False)
class Inventory:
    """What a folder or zip file holds.

    Attributes:
        path: As the user gave it.
        series: In order of number and description; scans and others.
        damaged: DICOM files that could not be read, and why; they may have been slices.
    """

    path: Path
    series: tuple[Series, ...]
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """The damaged files, each with the reason."""
        return tuple(f"{file}: {reason}" for file, reason in self.damaged)


def find_series(path: str | Path) -> Inventory:
    """Look through a folder, a zip file or one file for DICOM series; no pixels are read.

    The inventories of the last few places are kept, and given again for as long as no file
    there comes, goes or changes, so whoever needs one may ask for it.

    Args:
        path: Files may have any name and depth; others beside them are passed over. Of a
            DICOMDIR the folder that it lies in.

    Raises:
        FileFormatError: If there is no such path, or no DICOM file in it, or one file is given
            and cannot be read.
        MissingDependencyError: If pydicom is not installed.
    """
    require_package()
    given = folder_of_index(Path(path))
    place = unpacked(given)
    if not place.exists():
        raise FileFormatError(f"{given}: there is no such file or folder; check the name")
    files = tuple(candidates(place)) if place.is_dir() else (place,)
    states = [file.stat() for file in files]
    stamps = tuple((state.st_size, state.st_mtime_ns) for state in states)
    last_change = max((changed for _, changed in stamps), default=0)
    if len(files) > _MOST_FILES_KEPT or time.time_ns() - last_change < _TICK_NS:
        return _inventory.__wrapped__(given, place, files, stamps)
    return _inventory(given, place, files, stamps)


@lru_cache(maxsize=4)
def _inventory(
    given: Path, place: Path, paths: tuple[Path, ...], stamps: tuple[tuple[int, int], ...]
) -> Inventory:
    files: list[ImageFile] = []
    damaged: list[tuple[Path, str]] = []
    with named(given):
        for path in paths:
            shown = given if path == place else given / path.relative_to(place)
            try:
                found = read_header(path, shown)
            except UnreadableError as error:
                if path == place:
                    raise
                damaged.append((shown, str(error)))
                continue
            if found is not None:
                files.append(found)
        groups: dict[tuple[str, ...], list[ImageFile]] = defaultdict(list)
        for file in files:
            groups[_series_key(file)].append(file)
        found_series = [described(given, group) for group in groups.values()]
    if not files and not damaged:
        what = "is not DICOM" if place.is_file() else "holds no DICOM files"
        msg = f"{given}: {what}; give a folder with a DICOM series, or a volume file"
        raise FileFormatError(f"{msg} such as scan.nii.gz")
    return Inventory(given, tuple(sorted(found_series, key=_order)), tuple(damaged))


def _order(series: Series) -> tuple[int, str, str]:
    return (series.number if series.number is not None else 1 << 31, series.description, series.uid)


def _series_key(file: ImageFile) -> tuple[str, ...]:
    uid = text(file.header, "SeriesInstanceUID")
    if uid:
        return (uid,)
    # Some tools remove the UID: then what else is the same in all slices of a series.
    keywords = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "SeriesDescription")
    words = (text(file.header, keyword) for keyword in (*keywords, "Modality"))
    return ("", str(file.path.parent), *words)


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
    with named(inventory.path):
        if wanted is not None:
            return _wanted(inventory, str(wanted).strip())
        return _fitting(inventory, modality)


def _fitting(inventory: Inventory, modality: str | None) -> Series:
    scans = [series for series in inventory.series if series.kind == VOLUME]
    if not scans:
        raise _no_scan(inventory)
    fitting = [s for s in scans if modality is None or s.modality.upper() == modality.upper()]
    if not fitting:
        raise UnreadableError(f"holds no {modality} scan but {_listed(scans)}", "choose a folder")
    n_patients = len({series.patient for series in fitting})
    if n_patients > 1:
        remedy = f"choose one of {_listed(fitting)}"
        raise UnreadableError(f"holds scans of {n_patients} patients", remedy)
    most = max(series.n_slices for series in fitting)
    best = [series for series in fitting if series.n_slices == most]
    if len(best) > 1:
        remedy = f"choose one of {_listed(best)}"
        raise UnreadableError(f"{len(best)} scans fit equally well", remedy)
    return best[0]


def _wanted(inventory: Inventory, wanted: str) -> Series:
    tests: tuple[Callable[[Series], bool], ...] = (
        lambda series: wanted in (series.uid, str(series.number)),
        lambda series: wanted.lower() == series.description.lower(),
        lambda series: wanted.lower() in series.description.lower(),
    )
    for test in tests:
        found = [series for series in inventory.series if wanted and test(series)]
        if len(found) == 1:
            return found[0]
        if found:
            msg = f"{len(found)} series match {wanted!r}: {_listed(found)}"
            raise UnreadableError(msg, "choose one by another property, or by its UID")
    raise UnreadableError(f"no series matches {wanted!r}", f"it has {_listed(inventory.series)}")


def _listed(series: Iterable[Series]) -> str:
    return ", ".join(one.name for one in series)


def _no_scan(inventory: Inventory) -> LeansegError:
    if not inventory.series:
        return FileFormatError(f"{inventory.skipped[0]}; copy or export it again")
    kinds = dict.fromkeys(series.kind for series in inventory.series)
    found = "; ".join(f"{kind}: {REFUSALS[kind]}" if kind in REFUSALS else kind for kind in kinds)
    return FileFormatError(f"{inventory.path}: holds no scan ({found}); give the folder of a scan")
