"""Reviews of label maps that lie in a folder already."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from leanseg.datasets.load import as_label_map
from leanseg.errors import FileFormatError, LeansegError
from leanseg.inference.inputs import PredictionTask, open_scan
from leanseg.inference.records import Records, file_sha256, record_name
from leanseg.inference.review import Review, Reviewer
from leanseg.modelfile import ModelFile
from leanseg.volumes import on_grid_of, read_volume, require_finite

_SUFFIX = ".nii.gz"


def review_folder(
    reviewer: Reviewer,
    file: ModelFile,
    tasks: Sequence[PredictionTask],
    folder: Path,
    on_case: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, Review], dict[str, str]]:
    """Review NIfTI label maps that are called as their scans are.

    The network's confidence is in the folder's records; of a label map that this model did not
    make, or that was changed since, it is not known.

    Args:
        reviewer: Of the model.
        file: The model.
        tasks: The scans, from `collect_tasks`.
        folder: The label maps.
        on_case: Called with the name of each case when it is done.

    Returns:
        By case the reviews, and why there is none.
    """
    records, reviews, failed = Records.of(folder), {}, {}
    for task in tasks:
        name = task.case.name
        try:
            reviews[name] = _review(reviewer, file, task, folder / f"{name}{_SUFFIX}", records)
        except LeansegError as error:
            failed[name] = str(error)
        on_case(name)
    return reviews, failed


def _review(
    reviewer: Reviewer, file: ModelFile, task: PredictionTask, path: Path, records: Records
) -> Review:
    if not path.is_file():
        raise FileFormatError(f"{path}: is missing; predict this scan first, or leave it out")
    entry = records.entries.get(record_name(path, task.case.name), {})
    is_own = entry.get("model_weights_sha256") == file.weights_sha256
    confidence = {}
    if is_own and entry.get("output_sha256") == file_sha256(path):
        confidence = dict(entry.get("confidence", {}))
    scan, labels = open_scan(task.case).read(), as_label_map(read_volume(path))
    require_finite(scan)
    labels = on_grid_of(scan, labels)
    began = time.perf_counter()
    look = reviewer.look(scan, task.channel_indices)
    review = reviewer.review(look, labels, confidence)
    return replace(review, seconds=time.perf_counter() - began)
