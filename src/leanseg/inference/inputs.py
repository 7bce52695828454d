"""From what a user points at to the scans to predict."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leanseg.datasets import LAYOUTS, Case, Dataset, VolumeSource, load_case, open_dataset
from leanseg.errors import DatasetError
from leanseg.frames.view import Scan
from leanseg.plan import Plan
from leanseg.volumes import is_archive, is_volume_path, open_volume, unpacked, volume_stem
from leanseg.volumes.dicom import find_series, folder_of_index, is_dicom

_LISTINGS = (".json", ".csv", ".tsv")
_READER_OPTIONS = {"series", "phase", "modality", "fill_missing", "geometry"}


@dataclass(frozen=True)
class PredictionTask:
    """One scan to predict.

    Attributes:
        case: Its name and image files; the label, if any, is not looked at.
        channel_indices: Which channels of the files are the model's; None for all.
    """

    case: Case
    channel_indices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class DicomChoice:
    """What the user says about DICOM inputs; None leaves it to the scan that fits the model.

    Attributes:
        series: Number, description or UID.
        phase: Of a scan with several, from 1.
        fill_missing: Interpolate missing slices.
    """

    series: str | None = None
    phase: int | None = None
    fill_missing: bool = False

    def options(self, plan: Plan) -> dict[str, Any]:
        """Options of the volume reader."""
        options: dict[str, Any] = {"series": self.series, "phase": self.phase}
        if self.fill_missing:
            options["fill_missing"] = True
        if plan.is_in_hounsfield:
            options["modality"] = "CT"
        return {name: value for name, value in options.items() if value is not None}


def collect_tasks(
    inputs: Iterable[Path],
    plan: Plan,
    channel_indices: Sequence[int] | None = None,
    dicom: DicomChoice | None = None,
    geometry: str = "auto",
) -> list[PredictionTask]:
    """The scans that files, folders and datasets stand for.

    Args:
        inputs: Scan files, folders, zip files or DICOMDIRs with a DICOM series, folders of
            scans, or datasets in a registered layout.
        plan: Names the channels; in a dataset they are found by name.
        channel_indices: Channels chosen by the user; overrides the names.
        dicom: Which series and phase of DICOM inputs.
        geometry: Which of sform and qform counts, as in `leanseg.volumes.read_volume`.

    Returns:
        Tasks with unique names, in the order given, folders sorted by name.

    Raises:
        DatasetError: If an input does not exist or is given twice, a folder holds no scan, or a
            dataset lacks a channel.
        LeansegError: If a zip file cannot be unpacked, or there is no such geometry.
    """
    chosen = None if channel_indices is None else tuple(channel_indices)
    tasks: list[PredictionTask] = []
    for path in inputs:
        tasks.extend(_tasks(folder_of_index(path), plan, chosen, dicom or DicomChoice()))
    tasks = [replace(task, case=task.case.read_as(geometry)) for task in tasks]
    return _with_unique_names(tasks)


def _with_unique_names(tasks: Sequence[PredictionTask]) -> list[PredictionTask]:
    """Scans of one name get those of their folders before it: `A/ct` and `B/ct`, `A_ct`, `B_ct`.

    Raises:
        DatasetError: If a scan is given twice.
    """
    given = Counter(os.path.realpath(task.case.images[0].path) for task in tasks)
    for path, times in given.items():
        if times > 1:
            raise DatasetError(f"{path}: is given {times} times; give every scan once")
    named = [task.case.name for task in tasks]
    folders = [_folders_of(task) for task in tasks]
    while clashes := [n for n, name in enumerate(named) if named.count(name) > 1 and folders[n]]:
        for number in clashes:
            named[number] = f"{folders[number].pop()}_{named[number]}"
    # "A/ct" and "A_ct" are spelt alike whatever stands before them.
    numbered = [
        name if named.index(name) == n else f"{name}_{named[: n + 1].count(name)}"
        for n, name in enumerate(named)
    ]
    return [
        task if task.case.name == name else replace(task, case=replace(task.case, name=name))
        for task, name in zip(tasks, numbered, strict=True)
    ]


def _folders_of(task: PredictionTask) -> list[str]:
    """Names of the folders above a scan, the nearest last."""
    return [part for part in Path(os.path.realpath(task.case.images[0].path)).parts[1:-1] if part]


def open_scan(case: Case) -> Scan:
    """The header of a case's scan; all of it where it is made of several files.

    Raises:
        LeansegError: If it cannot be read.
    """
    first = case.images[0]
    if len(case.images) == 1 and first.reader == "volume" and set(first.options) <= _READER_OPTIONS:
        return open_volume(first.path, **first.options)
    # The label plays no part: a case is predicted whether or not it has one.
    scan, _ = load_case(replace(case, label_parts=()))
    return scan


def _tasks(
    path: Path, plan: Plan, chosen: tuple[int, ...] | None, dicom: DicomChoice
) -> list[PredictionTask]:
    place = unpacked(path)
    if place.is_dir() or path.suffix.lower() in _LISTINGS:
        return _from_folder(path, plan, chosen, dicom)
    if is_volume_path(path):
        # A missing file is found when it is read, so that it does not stop the others.
        return [PredictionTask(Case(path, name=volume_stem(path)), chosen)]
    if place.is_file():
        return [_dicom_task(path, plan, chosen, dicom)]
    raise DatasetError(f"{path}: there is no such scan or folder; correct the path")


def _from_folder(
    folder: Path, plan: Plan, chosen: tuple[int, ...] | None, dicom: DicomChoice
) -> list[PredictionTask]:
    if folder.is_dir() and len(plan.channels) == 1:
        # Bare scans go by their own names; with several channels a scan may be several files.
        scans = sorted(path for path in folder.iterdir() if is_volume_path(path) and path.is_file())
        # In a case's own folder the label map beside the scan is no scan.
        if scans and not LAYOUTS["casefolders"].recognises(folder):
            cases = [Case(path, name=volume_stem(path)) for path in scans]
            return [PredictionTask(case, chosen) for case in cases]
    if dicom.series is not None:
        return [_dicom_task(folder, plan, chosen, dicom)]
    try:
        dataset: Dataset | None = open_dataset(folder)
    except DatasetError:
        if not is_dicom(folder):
            raise
        dataset = None
    if dataset is None or _is_bare_dicom(folder, dataset):
        return [_dicom_task(scan, plan, chosen, dicom) for scan in _dicom_scans(folder)]
    if chosen is None and tuple(plan.channels) != tuple(dataset.channels):
        chosen = channels_by_name(folder, dataset.channels, plan)
    return [PredictionTask(case, chosen) for case in dataset.cases]


def _is_bare_dicom(folder: Path, dataset: Dataset) -> bool:
    """Whether a dataset is but a folder of DICOM folders, which may be one patient's series."""
    images = [case.images[0].path for case in dataset.cases]
    return all(path.parent == folder and is_dicom(path) for path in images)


def _dicom_scans(folder: Path) -> list[Path]:
    """The folders or zip files in it, if they are scans of several patients; else itself."""
    if not folder.is_dir():
        return [folder]
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() or is_archive(path)]
    inner = [path for path in inner if not path.name.startswith((".", "__MACOSX"))]
    archives = [path for path in inner if not path.is_dir()]
    if not archives and len({series.patient for series in find_series(folder).series}) <= 1:
        return [folder]
    return [path for path in inner if is_dicom(path)] or [folder]


def _dicom_task(
    path: Path, plan: Plan, chosen: tuple[int, ...] | None, dicom: DicomChoice
) -> PredictionTask:
    name = path.stem if path.is_file() else Path(os.path.realpath(path)).name
    source = VolumeSource(path, options=dicom.options(plan))
    return PredictionTask(Case(source, name=name), chosen)


def channels_by_name(folder: Path, available: Sequence[str], plan: Plan) -> tuple[int, ...] | None:
    """Where the plan's channels are among a dataset's; None where these are to be taken in order.

    Raises:
        DatasetError: If the dataset lacks one.
    """
    if all(name in available for name in plan.channels):
        return tuple(available.index(name) for name in plan.channels)
    if len(available) == len(plan.channels):
        # Same number under other names ("CT" against "portal venous CT"): taken in order.
        return None
    raise DatasetError(
        f"{folder}: has channels {', '.join(available)}, but the model needs "
        f"{', '.join(plan.channels)}; choose them by number with --channel"
    )
