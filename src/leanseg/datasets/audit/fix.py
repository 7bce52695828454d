"""A copy of a dataset with every label map in the grid of its scan."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.audit.findings import Finding
from leanseg.datasets.audit.label import highest_value, mapped
from leanseg.datasets.audit.result import Audit
from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.load import as_label_map
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError, GeometryError, LeansegError
from leanseg.volumes import (
    VOLUME_SUFFIXES,
    Volume,
    on_grid_of,
    resample_to,
    volume_stem,
    write_mask,
    write_volume,
)

# What the copy mends; findings of every other kind stay as they are.
FIXED_KINDS = ("grid-differs",)
# .mhd points to a second file, whose name would have to change with it.
_COPIED = tuple(suffix for suffix in VOLUME_SUFFIXES if suffix != ".mhd")


@dataclass(frozen=True)
class FixedCase:
    """What happened to a case on its way into the copy.

    Attributes:
        name: The case.
        resampled: Whether its label map was resampled.
        kept: Part of the labelled volume that is still there, 1 for all of it.
        problem: Why the case could not be copied, as a sentence; None if it was.
    """

    name: str
    resampled: bool = False
    kept: float = 1.0
    problem: str | None = None


@dataclass(frozen=True)
class FixReport:
    """What the copy is.

    Attributes:
        folder: Where it lies, in the plain layout.
        cases: What happened to each case.
        unfixed: Errors that are in the copy too, or whose cases were left out.
    """

    folder: Path
    cases: tuple[FixedCase, ...]
    unfixed: tuple[Finding, ...]

    @property
    def may_train(self) -> bool:
        """Whether no error is left and no case was left out."""
        return not self.unfixed and not any(case.problem for case in self.cases)


def write_fixed_copy(
    dataset: Dataset,
    audit: Audit,
    folder: str | Path,
    *,
    on_case: Callable[[str], None] | None = None,
) -> FixReport:
    """Write a dataset anew in the plain layout, with label maps resampled where they must be.

    Scans in a volume file are copied byte by byte, all others (DICOM series, corrected ones)
    are written as NIfTI. A label map on its scan's grid keeps its voxels; any other is brought
    there through world space, each voxel taking the nearest label. The copy appears whole or
    not at all, and the dataset itself is never written to.

    Args:
        dataset: The dataset.
        audit: What was found in it.
        folder: Where; absent or empty.
        on_case: Called with the name of each case that is done.

    Raises:
        DatasetError: If the folder holds something, lies in the dataset, or cannot be made, or
            no case at all could be copied.
    """
    folder = Path(folder)
    check_target(dataset, folder)
    cases = []
    with _folder_written_whole(folder) as temporary:
        copied = []
        for case in dataset.cases:
            result = _copy_case(case, temporary)
            if result.problem is None:
                copied.append(case)
            cases.append(result)
            if on_case is not None:
                on_case(case.name)
        if not copied:
            msg = f"{folder}: no case could be copied; mend the dataset first"
            raise DatasetError(f"{msg} ({cases[0].problem})")
        if not any((temporary / "labels").iterdir()):
            (temporary / "labels").rmdir()
        text = json.dumps(_listing(audit, dataset, copied), indent=1, ensure_ascii=False)
        (temporary / "labels.json").write_text(text + "\n", encoding="utf-8")
    unfixed = tuple(
        finding
        for finding in audit.findings
        if finding.severity == "error" and finding.kind not in FIXED_KINDS
    )
    return FixReport(folder, tuple(cases), unfixed)


def check_target(dataset: Dataset, folder: Path) -> None:
    """Refuse a folder that must not be written to.

    Raises:
        DatasetError: If it holds something or lies in the dataset's own folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder}: already holds something; choose a new folder for the fixed copy"
        raise DatasetError(msg)
    root = dataset.root.resolve()
    if root == folder.resolve() or root in folder.resolve().parents:
        msg = f"{folder}: lies in the dataset itself; choose a folder outside of it"
        raise DatasetError(msg)


@contextmanager
def _folder_written_whole(folder: Path) -> Iterator[Path]:
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    try:
        for part in ("images", "labels"):
            (temporary / part).mkdir(parents=True)
        yield temporary
        if folder.is_dir():
            folder.rmdir()
        temporary.replace(folder)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        msg = f"{folder}: cannot be made ({error.strerror}); choose another folder"
        raise DatasetError(msg) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_case(case: Case, folder: Path) -> FixedCase:
    written: list[Path] = []
    try:
        scan = None
        for n, source in enumerate(case.images):
            channel = f"_{n:04d}" if len(case.images) > 1 else ""
            volume = read_source(source)
            written.append(_copy_volume(source, volume, folder / "images", case.name + channel))
            scan = scan or volume
        assert scan is not None  # a case has at least one image
        if not case.label_parts:
            return FixedCase(case.name)
        array, kept = _label_on(scan, case)
        path = folder / "labels" / f"{case.name}.nii.gz"
        written.append(path)
        write_mask(path, array, scan)
        return FixedCase(case.name, resampled=kept is not None, kept=1.0 if kept is None else kept)
    except LeansegError as error:
        for path in written:
            path.unlink(missing_ok=True)
        return FixedCase(case.name, problem=str(error))


def _copy_volume(source: VolumeSource, volume: Volume, folder: Path, name: str) -> Path:
    suffix = source.path.name[len(volume_stem(source.path)) :]
    plain = source.reader == "volume" and not source.options
    if plain and source.path.is_file() and suffix.lower() in _COPIED:
        target = folder / f"{name}{suffix}"
        shutil.copyfile(source.path, target)
        return target
    target = folder / f"{name}.nii.gz"
    write_volume(target, volume)
    return target


def _label_on(scan: Volume, case: Case) -> tuple[NDArray[Any], float | None]:
    """The case's label map on the scan's grid, and what part of it is left by resampling.

    None instead of the part where nothing had to be resampled.
    """
    merged = np.zeros(scan.shape, dtype=np.uint8, order="F")
    before_ml = after_ml = 0.0
    resampled = False
    for part in case.label_parts:
        volume = as_label_map(read_source(part.source, scan))
        before_ml += _labelled_ml(volume)
        try:
            volume = on_grid_of(scan, volume)
        except GeometryError:
            volume, resampled = resample_to(volume, scan, "nearest"), True
        after_ml += _labelled_ml(volume)
        merged = _laid_over(part, volume, merged)
    kept = after_ml / before_ml if before_ml else 1.0
    if before_ml and not after_ml:
        msg = (
            f"{case.label_path}: none of its labels lies within the scan in the world; "
            "check that they belong together"
        )
        raise GeometryError(msg)
    return merged, kept if resampled else None


def _laid_over(part: LabelPart, volume: Volume, below: NDArray[Any]) -> NDArray[Any]:
    if highest_value(part, volume.array) > np.iinfo(below.dtype).max:
        below = below.astype(np.uint16)
    for k in range(volume.shape[2]):
        values = mapped(part, volume.array[:, :, k].astype(np.int64))
        np.copyto(below[:, :, k], values, where=values > 0, casting="unsafe")
    return below


def _labelled_ml(volume: Volume) -> float:
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    return int(np.count_nonzero(volume.array)) * voxel_ml


def _listing(audit: Audit, dataset: Dataset, cases: list[Case]) -> dict[str, Any]:
    """The plain layout's labels.json."""
    annotated = {c.name: sorted(c.annotated) for c in cases if c.annotated is not None}
    metadata = {c.name: dict(c.metadata) for c in cases if c.metadata}
    listing: dict[str, Any] = {"channels": list(dataset.channels)}
    if audit.survey.labels:
        listing["labels"] = {str(value): name for name, value in audit.survey.labels.items()}
    if annotated:
        listing["annotated"] = annotated
    if metadata:
        listing["metadata"] = metadata
    return listing
