"""A study from its file to its table; whatever is done is not done again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from leanseg import __version__
from leanseg.datasets import Dataset
from leanseg.datasets.check import check
from leanseg.errors import DatasetError
from leanseg.executors import Executor, Job
from leanseg.files import require_outputs, write_json
from leanseg.scratch import held
from leanseg.studies.cells import (
    DATA_FOLDER,
    STUDY_FILE,
    Cell,
    ResolvedStudy,
    matrix,
    read_resolved,
    settle,
)
from leanseg.studies.definition import Study, TimesStudy
from leanseg.studies.results import RESULTS_FILE
from leanseg.studies.work import LOGS_FOLDER, cell_is_done, do_cell, open_study_dataset

_LOCK_FILE = ".study.lock"


@dataclass(frozen=True)
class Outcome:
    """How a study went.

    Attributes:
        n_kept: Cells that were done before.
        failed: Name of each cell that failed, to why.
    """

    n_kept: int
    failed: dict[str, str]


def usual_folder(study: Study | TimesStudy) -> Path:
    """Where a study lies when its user does not say."""
    return Path("studies") / f"{study.name}{'-quick' if study.is_quick else ''}".replace("/", "-")


def run_study(
    study: Study,
    folder: Path,
    executor: Executor,
    *,
    checked: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Do all cells of a study that are not done.

    Args:
        study: From `load_study`.
        folder: Its folder; one that holds the same study is gone on with, and the study may have
            become larger.
        executor: Does the cells.
        checked: Look at every scan and label map first, and refuse data that are wrong.
        tell: Called with what happens, a line each.

    Raises:
        LeansegError: If anything is found wrong before the first cell starts.
    """
    folder = folder.absolute()
    matrix(study)
    require_outputs([folder / STUDY_FILE, folder / RESULTS_FILE], new_folders=True)
    there = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    # What begins with a dot, and synthetic scans, are of a start that was killed.
    if STUDY_FILE not in there and {each for each in there if each[0] != "."} - {DATA_FOLDER}:
        raise DatasetError(f"{folder}: holds something that is no study; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another process works on this study; wait until it ends"
    try:
        with held(folder / _LOCK_FILE, busy):
            return _run(study, folder, executor, checked=checked, tell=tell)
    finally:
        with suppress(OSError):
            # Nothing came into it.
            folder.rmdir()


def _run(
    study: Study, folder: Path, executor: Executor, *, checked: bool, tell: Callable[[str], None]
) -> Outcome:
    before = read_resolved(folder) if (folder / STUDY_FILE).exists() else None
    names = dict.fromkeys([*study.trained_on, *study.evaluate_on])
    datasets = {name: open_study_dataset(study, name, folder) for name in names}
    cells, notes = settle(study, datasets, before, tell)
    waiting = [cell for cell in cells if not cell_is_done(folder, study, cell)]
    n_kept = len(cells) - len(waiting)
    seen = {} if before is None else before.study.datasets
    for name, dataset in datasets.items() if checked else ():
        if study.datasets[name] != seen.get(name):
            _check(name, dataset, tell)
    resolved = ResolvedStudy(
        leanseg=__version__, study=study, cells=tuple(cells), notes=tuple(notes)
    )
    jobs = [_job(folder, cell) for cell in waiting]
    ending = executor.run(jobs)
    write_json(folder / STUDY_FILE, resolved.model_dump(mode="json"))
    kept = f", {n_kept} of them are done" if n_kept else ""
    tell(f"{study.name}: {len(cells)} cells{kept}")
    failed = {}
    for number, ended in enumerate(ending, n_kept + 1):
        what = "done"
        if ended.failure is not None:
            failed[ended.job.name] = ended.failure
            log = folder / LOGS_FOLDER / f"{ended.job.name}.txt"
            what = f"failed: {ended.failure} (see {log})"
        tell(f"{number}/{len(cells)} {ended.job.name}: {what}")
    return Outcome(n_kept, failed)


def _job(folder: Path, cell: Cell) -> Job:
    cores = cell.training.training.threads or 1
    return Job(cell.name, do_cell, (str(folder), cell.name), cores, cell.memory_bytes)


def _check(name: str, dataset: Dataset, tell: Callable[[str], None]) -> None:
    """Refuse a dataset with an error, as a training does.

    Raises:
        DatasetError: With the first one.
    """
    tell(f"checking {name}")
    found = check(dataset)
    if not found.may_train:
        first = next(finding for finding in found.findings if finding.severity == "error")
        raise DatasetError(
            f"dataset {name!r}: {found.summary()} First of all: {first.message}; see everything "
            "with `leanseg check`, or go on all the same with --no-check"
        )
