"""From what a user points at to the scans to predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from leanseg.datasets import Case, open_dataset
from leanseg.datasets.layouts.decathlon import LISTING
from leanseg.errors import DatasetError
from leanseg.preprocessing import Plan
from leanseg.volumes import is_volume_path, volume_stem


@dataclass(frozen=True)
class PredictionTask:
    """One scan to predict.

    Attributes:
        case: Its name and image files; the label, if any, is not looked at.
        channel_indices: Which channels of the files are the model's; None for all.
    """

    case: Case
    channel_indices: tuple[int, ...] | None = None


def collect_tasks(
    inputs: Iterable[Path], plan: Plan, channel_indices: Sequence[int] | None = None
) -> list[PredictionTask]:
    """The scans that files, folders and datasets stand for.

    Args:
        inputs: Scan files, folders of scans, or dataset folders in a registered layout.
        plan: Names the channels; in a dataset they are found by name.
        channel_indices: Channels chosen by the user; overrides the names.

    Returns:
        Tasks with unique names, in the order given, folders sorted by name.

    Raises:
        DatasetError: If an input does not exist, a folder holds no scan, a dataset lacks a
            channel, or two scans would write the same result file.
    """
    chosen = None if channel_indices is None else tuple(channel_indices)
    tasks: list[PredictionTask] = []
    for path in inputs:
        if path.is_dir() or (path.name == LISTING and path.is_file()):
            tasks.extend(_from_folder(path, plan, chosen))
        elif path.is_file() or is_volume_path(path):
            # A missing file is found when it is read, so that it does not stop the others.
            tasks.append(PredictionTask(Case.of_files(volume_stem(path), (path,)), chosen))
        else:
            msg = f"{path}: there is no such scan or folder; correct the path"
            raise DatasetError(msg)
    seen: dict[str, Path] = {}
    for task in tasks:
        name, image = task.case.name, task.case.images[0].path
        if name in seen:
            msg = (
                f"{image}: its result would overwrite that of {seen[name]} (both are called "
                f"{name!r}); predict them into different folders"
            )
            raise DatasetError(msg)
        seen[name] = image
    return tasks


def _from_folder(folder: Path, plan: Plan, chosen: tuple[int, ...] | None) -> list[PredictionTask]:
    if folder.is_dir() and len(plan.channels) == 1:
        # Bare scans go by their own names; with several channels a scan may be several files.
        scans = sorted(path for path in folder.iterdir() if is_volume_path(path) and path.is_file())
        if scans:
            return [
                PredictionTask(Case.of_files(volume_stem(path), (path,)), chosen) for path in scans
            ]
    dataset = open_dataset(folder)
    if chosen is None and tuple(plan.channels) != tuple(dataset.channels):
        chosen = _channels_by_name(folder, dataset.channels, plan)
    return [PredictionTask(case, chosen) for case in dataset.cases]


def _channels_by_name(folder: Path, available: Sequence[str], plan: Plan) -> tuple[int, ...] | None:
    if all(name in available for name in plan.channels):
        return tuple(available.index(name) for name in plan.channels)
    if len(available) == len(plan.channels):
        # Same number under other names ("CT" against "portal venous CT"): taken in order.
        return None
    msg = (
        f"{folder}: has channels {', '.join(available)}, but the model needs "
        f"{', '.join(plan.channels)}; choose them by number with --channel"
    )
    raise DatasetError(msg)
