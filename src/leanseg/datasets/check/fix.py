"""A copy of a dataset with every label map in the grid of its scan."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.check.findings import Finding
from leanseg.datasets.check.label import lay_over, measure_labels
from leanseg.datasets.check.result import CheckResult
from leanseg.datasets.conversion import convert
from leanseg.datasets.load import as_label_map
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError, GeometryError
from leanseg.files import require_new_folder
from leanseg.scratch import scratch_folder
from leanseg.volumes import Volume, on_grid_of, resample, write_mask

# What the copy mends; findings of every other kind stay as they are.
FIXED_KIND = "grid-differs"
# Cases with these cannot be loaded, so that they cannot be copied.
_CANNOT_LOAD = (
    *("file-unreadable", "geometry-invalid", "spacing-zero", "channels-missing"),
    *("channel-grid-differs", "label-not-whole", "voxels-not-finite"),
    "label-overlap",
)


@dataclass(frozen=True)
class FixReport:
    """What the copy is.

    Attributes:
        folder: Where it lies, in the plain layout.
        n_cases: How many cases it holds.
        kept: Case to the part of its labelled volume that is left, 1 for all of it, for each
            case whose labels were resampled, or given the scan's header.
        left_out: Case to the reason why it could not be copied, as a sentence.
        unfixed: Errors that are in the copy too, or whose cases were left out.
    """

    folder: Path
    n_cases: int
    kept: dict[str, float]
    left_out: dict[str, str]
    unfixed: tuple[Finding, ...]

    @property
    def may_train(self) -> bool:
        """Whether no error is left and no case was left out."""
        return not self.unfixed and not self.left_out


def write_fixed_copy(
    dataset: Dataset,
    result: CheckResult,
    folder: Path,
    *,
    take_header: bool = False,
    on_case: Callable[[str], None] = lambda name: None,
) -> FixReport:
    """Copy a dataset, with label maps resampled onto the grid of their scans where they differ.

    Labels are resampled to the nearest voxel, through world space; or, if it is their header that
    is wrong, keep their voxels and take the scan's header. Files that are right already
    are copied byte for byte. The folder appears whole or not at all; the dataset is never touched.

    Args:
        dataset: What was checked.
        result: What was found.
        folder: A new or empty folder outside of the dataset's.
        take_header: Believe the scan's header where a label map on another grid has its shape.
        on_case: Called with the name of each case that is copied.

    Raises:
        DatasetError: If the folder holds something, lies in the dataset, or no case can be copied.
    """
    check_target(dataset, folder)
    with scratch_folder() as temporary:
        cases, kept, left_out = _mended(dataset, result, temporary, take_header)
        if not cases:
            msg = f"{folder}: no case could be copied; correct the dataset first"
            raise DatasetError(f"{msg} ({next(iter(left_out.values()))})")
        copied = replace(dataset, labels=result.survey.labels, cases=tuple(cases))
        convert(copied, "plain", folder, on_case=on_case)
    errors = (finding for finding in result.findings if finding.severity == "error")
    unfixed = tuple(error for error in errors if error.kind != FIXED_KIND)
    return FixReport(folder, len(cases), kept, left_out, unfixed)


def check_target(dataset: Dataset, folder: Path) -> None:
    """Refuse a folder that must not be written to.

    Raises:
        LeansegError: If it holds something, lies in the dataset's own folder or cannot be made.
    """
    root = os.path.realpath(dataset.root)
    if os.path.commonpath([root, os.path.realpath(folder)]) == root:
        raise DatasetError(f"{folder}: lies in the dataset itself; choose a folder outside of it")
    require_new_folder(folder)


def _mended(
    dataset: Dataset, result: CheckResult, place: Path, take_header: bool
) -> tuple[list[Case], dict[str, float], dict[str, str]]:
    """Cases to copy, with resampled labels in `place`; what is kept of those; who is left out."""
    broken = {f.case: f.message for f in result.findings if f.kind in _CANNOT_LOAD}
    apart = {finding.case for finding in result.findings if finding.kind == FIXED_KIND}
    left_out = {case.name: broken[case.name] for case in dataset if case.name in broken}
    cases: list[Case] = []
    kept: dict[str, float] = {}
    for case, facts in zip(dataset, result.cases, strict=True):
        if case.name in apart and case.name not in left_out:
            before_ml = sum(label.volume_ml for label in facts.labels)
            mask = place / f"{len(cases)}.nii.gz"
            kept[case.name] = _write_fitting_labels(case, mask, before_ml, take_header)
            if not kept[case.name]:
                msg = f"{case.label_path}: none of its labels lies within the scan in the world"
                left_out[case.name] = f"{msg}; check that they belong together"
            case = replace(case, label_parts=(LabelPart(VolumeSource(mask)),))
        if case.name not in left_out:
            cases.append(case)
    return cases, {name: part for name, part in kept.items() if part}, left_out


def _write_fitting_labels(case: Case, path: Path, before_ml: float, take_header: bool) -> float:
    """Write the label map of a case in its scan's grid; returns the part of it that is left."""
    scan, is_exact = case.image, take_header
    layers: list[Volume] = []
    for part in case.label_parts:
        volume = as_label_map(read_source(part.source, scan))
        if take_header and volume.shape == scan.shape:
            try:
                placed = on_grid_of(scan, volume)
            except GeometryError:
                placed = scan.with_array(volume.array)
        else:
            placed, is_exact = resample(volume, scan, "nearest"), False
        lay_over(layers, part, placed)
    write_mask(path, layers[0].array, scan)
    if is_exact or not before_ml:
        return 1.0
    return sum(label.volume_ml for label in measure_labels(layers)) / before_ml
