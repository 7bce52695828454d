"""Finding series: the files of a folder sorted into scans, each described from its headers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from leanseg.errors import FileFormatError
from leanseg.volumes.archive import is_archive, unpacked
from leanseg.volumes.dicom.describe import described
from leanseg.volumes.dicom.files import (
    ImageFile,
    UnreadableError,
    candidates,
    read_header,
    require_pydicom,
)
from leanseg.volumes.dicom.series import Inventory, Series
from leanseg.volumes.dicom.values import text


def find_series(path: str | Path) -> Inventory:
    """Look through a folder, a zip file or one file for DICOM series; no pixels are read.

    Args:
        path: Files may have any name and depth; others beside them are passed over.

    Raises:
        FileFormatError: If there is no such path, or no DICOM file in it, or one file is given
            and cannot be read.
        MissingDependencyError: If pydicom is not installed.
    """
    require_pydicom()
    given, place = Path(path), unpacked(Path(path))
    if not place.exists():
        msg = f"{given}: there is no such file or folder; check the name"
        raise FileFormatError(msg)
    paths = list(candidates(place)) if place.is_dir() else [place]
    files: list[ImageFile] = []
    skipped: list[tuple[Path, UnreadableError]] = []
    for file in paths:
        shown = given / file.relative_to(place) if place.is_dir() else given
        try:
            found = read_header(file, shown)
        except UnreadableError as error:
            skipped.append((shown, error))
            continue
        if found is not None:
            files.append(found)
    if not files and not skipped:
        raise _nothing(given)
    if skipped and place.is_file():
        raise FileFormatError(f"{given}: {skipped[0][1]}; copy or export it again")
    return Inventory(
        path=given,
        series=tuple(sorted(_grouped(given, files), key=_order)),
        skipped=tuple(f"{shown}: {reason}" for shown, reason in skipped),
        damaged=tuple((shown, str(error)) for shown, error in skipped if error.is_dicom),
    )


def _nothing(given: Path) -> FileFormatError:
    if given.is_dir():
        msg = "is a folder that holds no DICOM files; name a volume file in it, or a DICOM folder"
    elif is_archive(given):
        msg = f"holds no DICOM files; name a volume file in it ({given.name}/scan.nii.gz)"
    else:
        msg = "is not a DICOM file; name one, or a folder with a DICOM series"
    return FileFormatError(f"{given}: {msg}")


def _order(series: Series) -> tuple[int, str, str]:
    return (series.number if series.number is not None else 1 << 31, series.description, series.uid)


def _grouped(given: Path, files: Sequence[ImageFile]) -> list[Series]:
    groups: dict[tuple[str, ...], list[ImageFile]] = defaultdict(list)
    for file in files:
        groups[_series_key(file)].append(file)
    return [described(given, group) for group in groups.values()]


def _series_key(file: ImageFile) -> tuple[str, ...]:
    uid = text(file.header, "SeriesInstanceUID")
    if uid:
        return (uid,)
    # Some tools remove the UID: then what else is the same in all slices of a series.
    keywords = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "SeriesDescription")
    words = (text(file.header, keyword) for keyword in (*keywords, "Modality"))
    return ("", str(file.path.parent), *words)
