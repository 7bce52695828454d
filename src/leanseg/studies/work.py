"""A cell of a study, trained and scored in a process of its own."""

from __future__ import annotations

import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

from leanseg.datasets import Dataset, open_dataset
from leanseg.datasets.phantom import phantom
from leanseg.errors import LeansegError
from leanseg.scratch import held
from leanseg.studies.cells import (
    CELLS_FOLDER,
    DATA_FOLDER,
    ELSEWHERE_FOLDER,
    Cell,
    ResolvedStudy,
    data_recipe,
    read_resolved,
)
from leanseg.studies.definition import Study
from leanseg.training.folder import MODEL_FILE, RECIPE_FILE, Run, is_done

CACHE_FOLDER, LOGS_FOLDER = "cache", "logs"


def open_study_dataset(study: Study, name: str, folder: Path) -> Dataset:
    """A dataset of a study; synthetic scans are made in the study's folder.

    Raises:
        LeansegError: If it cannot be read, or written.
    """
    entry = study.datasets[name]
    if entry.phantom is None:
        return replace(open_dataset(Path(str(entry.path))), name=name)
    made = entry.phantom
    data = phantom(
        folder / DATA_FOLDER / name,
        made.cases,
        seed=made.seed,
        size=made.size,
        slices=made.slices,
        tumour_mm=made.tumour_mm,
    )
    return replace(data, name=name)


def run_folder(folder: Path, cell: Cell) -> Path:
    """Where a cell's run lies in the folder of a study."""
    return folder / CELLS_FOLDER / cell.name


def elsewhere_scores(folder: Path, cell: Cell, dataset: str) -> Path:
    """A cell's scores on another dataset."""
    return run_folder(folder, cell) / ELSEWHERE_FOLDER / dataset / "scores.json"


def cell_is_done(folder: Path, study: Study, cell: Cell) -> bool:
    """Whether a cell is trained and scored to its end.

    Raises:
        LeansegError: If it is, and a file of it was damaged since.
    """
    fold = run_folder(folder, cell) / f"fold_{cell.fold}"
    elsewhere = study.scored_elsewhere(cell.dataset)
    return is_done(fold) and all(
        elsewhere_scores(folder, cell, name).exists() for name in elsewhere
    )


def do_cell(folder: str, name: str) -> None:
    """Train and score a cell, or go on with it where it was interrupted.

    Args:
        folder: The study's folder; what it says goes to a log in there.
        name: The cell.

    Raises:
        LeansegError: What is wrong.
    """
    root = Path(folder)
    if not root.is_dir():
        raise LeansegError(
            f"{root}: does not exist on every machine; put the study on a shared disk"
        )
    resolved = read_resolved(root)
    cell = next(each for each in resolved.cells if each.name == name)
    log, lock = root / LOGS_FOLDER / f"{name}.txt", root / LOGS_FOLDER / f".{name}.lock"
    log.parent.mkdir(exist_ok=True)
    # A process of a node that was lost may end a little later than its node.
    with (
        held(lock),
        log.open("a", encoding="utf-8") as stream,
        redirect_stdout(stream),
        redirect_stderr(stream),
    ):
        try:
            _do(root, resolved, cell)
        except Exception:
            traceback.print_exc()
            raise


def _do(root: Path, resolved: ResolvedStudy, cell: Cell) -> None:
    from rich.console import Console

    from leanseg.training import open_run, start_run, train_run

    folder, study, cache = run_folder(root, cell), resolved.study, root / CACHE_FOLDER
    console = Console(width=200, highlight=False)
    if (folder / RECIPE_FILE).exists():
        run = open_run(folder, cache)
    else:
        data = open_study_dataset(study, cell.dataset, root)
        run = start_run(cell.training, data, folder, cache, check=False, console=console)
    train_run(run, console)
    for name in study.scored_elsewhere(cell.dataset):
        if not elsewhere_scores(root, cell, name).exists():
            _score_elsewhere(root, study, cell, run, name)


def _score_elsewhere(root: Path, study: Study, cell: Cell, run: Run, name: str) -> None:
    """Score a cell's model on every case of another dataset."""
    from leanseg.inference import load_model
    from leanseg.progress import Display
    from leanseg.training.data import select_data
    from leanseg.training.finish import score_cases

    recipe = data_recipe(study, cell.training, name)
    dataset = open_study_dataset(study, name, root).read_as(recipe.data.geometry)
    data = select_data(dataset, recipe)
    output = elsewhere_scores(root, cell, name)
    path = run.fold_folder(cell.fold) / MODEL_FILE
    model = load_model(path, threads=cell.training.training.threads, allow_imports=True)
    with Display() as display:
        cases = [case.name for case in data.cases]
        there = replace(run, data=data)
        scores, _ = score_cases(there, cases, output.parent / "predictions", model, display)
    scores.to_json(output)
