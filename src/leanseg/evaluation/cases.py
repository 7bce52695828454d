"""Scoring files: read, check that both lie on one grid, score, side by side."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from leanseg.datasets import Case, load_case
from leanseg.errors import DatasetError, FileFormatError, LeansegError
from leanseg.evaluation.labels import LabelValues, normalise_labels, present_values
from leanseg.evaluation.masks import (
    LabelScore,
    check_label_map,
    merge_prediction_labels,
    score_labels,
)
from leanseg.evaluation.matching import CasePair, MatchedCases, match_cases
from leanseg.evaluation.policy import EvaluationSettings
from leanseg.evaluation.scores import Scores
from leanseg.volumes import Volume, on_grid_of, read_volume

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def evaluate_folders(
    predictions: str | Path,
    references: str | Path,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    *,
    prediction_labels: Mapping[str, int | Sequence[int]] | None = None,
    settings: EvaluationSettings | None = None,
    allow_missing: bool = False,
    n_workers: int = 0,
    on_case: Callable[[str], None] | None = None,
) -> Scores:
    """`match_cases`, then `evaluate_cases`; the arguments are theirs."""
    matched = match_cases(predictions, references, allow_missing=allow_missing)
    chosen, of_predictions = choose_labels(matched, labels, prediction_labels)
    return evaluate_cases(
        matched.pairs,
        chosen,
        prediction_labels=of_predictions,
        settings=settings,
        n_workers=n_workers,
        on_case=on_case,
    )


def choose_labels(
    matched: MatchedCases,
    labels: Mapping[str, int | Sequence[int]] | None,
    prediction_labels: Mapping[str, int | Sequence[int]] | None,
) -> tuple[Mapping[str, int | Sequence[int]] | None, Mapping[str, int | Sequence[int]] | None]:
    """The labels to score and their values in the predictions, as far as they are known.

    Those that are given; else, where the references are a dataset, its labels, and of these only
    the ones that the model has, where a record beside the predictions tells.
    """
    if labels is not None or matched.labels is None:
        return labels, prediction_labels
    recorded = matched.prediction_labels
    if prediction_labels is not None or recorded is None:
        return matched.labels, prediction_labels
    return {name: matched.labels[name] for name in recorded}, recorded


def evaluate_cases(
    pairs: Iterable[CasePair],
    labels: Mapping[str, int | Sequence[int]] | None = None,
    *,
    prediction_labels: Mapping[str, int | Sequence[int]] | None = None,
    settings: EvaluationSettings | None = None,
    n_workers: int = 0,
    on_case: Callable[[str], None] | None = None,
) -> Scores:
    """Score predicted label maps against references.

    Args:
        pairs: The files of each case.
        labels: Label name to its value or values in the references; None scores every value
            that a reference holds, as label_1, label_2, ...
        prediction_labels: Values in the predictions, for names whose values differ there.
        settings: Tolerance and policies; None for the defaults.
        n_workers: Processes that score cases side by side; 0 works in this one. The scores do
            not depend on it.
        on_case: Called with the name of each case when it is done, in the order of `pairs`.

    Returns:
        The scores, in the order of `pairs`, then of the labels.

    Raises:
        GeometryError: If the two grids of a case differ.
        LeansegError: If a file cannot be read or is no label map, or labels are not valid.
    """
    pairs = tuple(pairs)
    settings = settings or EvaluationSettings()
    if n_workers < 0:
        msg = f"{n_workers} workers are not possible; give 0 or more"
        raise LeansegError(msg)
    if not pairs:
        msg = "there are no cases to score; give at least one pair of label maps"
        raise DatasetError(msg)
    names = [pair.name for pair in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"case {twice} is given twice; name every case once"
        raise DatasetError(msg)
    in_reference = (
        normalise_labels(labels) if labels is not None else _find_labels(pairs, n_workers)
    )
    in_prediction = merge_prediction_labels(in_reference, prediction_labels)
    score = partial(
        _score_case, labels=in_reference, prediction_labels=in_prediction, settings=settings
    )
    scores: list[LabelScore] = []
    for pair, of_case in zip(pairs, _run(score, pairs, n_workers), strict=True):
        scores += of_case
        if on_case is not None:
            on_case(pair.name)
    recorded = asdict(settings)
    if prediction_labels:
        recorded["prediction_labels"] = {name: list(v) for name, v in in_prediction.items()}
    return Scores(labels=in_reference, cases=tuple(scores), settings=recorded)


def _run(
    function: Callable[[_Item], _Result], items: Sequence[_Item], n_workers: int
) -> Iterator[_Result]:
    """Results in the order of the items, whoever computes them."""
    if n_workers == 0 or len(items) == 1:
        yield from map(function, items)
        return
    # Fresh processes, since a fork of one that has threads may hang.
    pool = ProcessPoolExecutor(
        min(n_workers, len(items)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupts_to_parent,
    )
    try:
        yield from pool.map(function, items)
    except BrokenProcessPool as error:
        msg = "a worker process was killed, perhaps for lack of memory; use fewer workers"
        raise LeansegError(msg) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _find_labels(pairs: Sequence[CasePair], n_workers: int) -> LabelValues:
    found = _run(_reference_values, pairs, n_workers)
    values = sorted(set().union(*found))
    if not values:
        msg = (
            f"the references (such as {_reference_path(pairs[0])}) hold only background; "
            "name the labels to score, such as liver=1"
        )
        raise LeansegError(msg)
    return {f"label_{value}": (value,) for value in values}


def _reference_values(pair: CasePair) -> set[int]:
    return present_values(_read_reference(pair).array)


def _reference_path(pair: CasePair) -> Path | None:
    return pair.reference.label_path if isinstance(pair.reference, Case) else pair.reference


def _read_reference(pair: CasePair) -> Volume:
    if not isinstance(pair.reference, Case):
        return _read_label_map(pair.reference)
    # Some labels have no place in the world but their scan's.
    _, label = load_case(pair.reference)
    if label is None:
        msg = f"case {pair.name} has no labels; leave it out"
        raise DatasetError(msg)
    return label


def _read_label_map(path: Path) -> Volume:
    volume = read_volume(path)
    if volume.array.ndim != 3:
        msg = (
            f"{path} has shape {volume.array.shape}; give a 3-D label map with one value per voxel"
        )
        raise FileFormatError(msg)
    return volume.with_array(check_label_map(volume.array, str(path)))


def _score_case(
    pair: CasePair,
    labels: LabelValues,
    prediction_labels: LabelValues,
    settings: EvaluationSettings,
) -> list[LabelScore]:
    reference = _read_reference(pair)
    if pair.prediction is None:
        array = np.zeros_like(reference.array)
    else:
        array = on_grid_of(reference, _read_label_map(pair.prediction)).array
    known = _annotated(pair, labels)
    scores = score_labels(
        array, reference.array, reference.spacing_mm, known, prediction_labels, settings
    )
    if pair.prediction is None:
        missing = "no prediction file, scored as empty"
        scores = [
            replace(score, note=f"{missing}; {score.note}" if score.note else missing)
            for score in scores
        ]
    return [replace(score, case=pair.name) for score in scores]


def _annotated(pair: CasePair, labels: LabelValues) -> LabelValues:
    """The labels that can be scored in a case: an unannotated one is unknown, not absent."""
    known = pair.annotated
    if known is None:
        return labels
    return {name: values for name, values in labels.items() if known.issuperset(values)}
