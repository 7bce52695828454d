"""Scoring files: read, check that both lie on one grid, score, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, VolumeSource, is_ignore, load_case, read_source
from leanseg.datasets.load import as_label_map, require_few_values
from leanseg.datasets.sources import VolumeLike
from leanseg.errors import DatasetError, GeometryError, LeansegError, told
from leanseg.evaluation.labels import LabelValues, normalise_labels, require_not_ignored
from leanseg.evaluation.lesions import LesionScores, lesion_scores, require_panoptica
from leanseg.evaluation.masks import (
    LabelScore,
    evaluate_masks,
    mask_pair,
    merge_prediction_labels,
)
from leanseg.evaluation.matching import CasePair, MatchedCases, match_cases, recorded_labels
from leanseg.evaluation.policy import EvaluationSettings
from leanseg.evaluation.scores import Scores
from leanseg.runtime import in_order
from leanseg.volumes import Volume, on_grid_of

LabelMap = str | Path | Volume | NDArray[Any]
Labels = Mapping[str, int | Sequence[int]]


def evaluate(
    prediction: LabelMap,
    reference: LabelMap | Case,
    labels: Labels | None = None,
    *,
    affine: NDArray[np.float64] | None = None,
    prediction_labels: Labels | None = None,
    settings: EvaluationSettings | None = None,
    allow_missing: bool = False,
    ignored_values: Sequence[int] = (),
    geometry: str = "auto",
    lesions: Sequence[str] = (),
    n_workers: int = 0,
) -> Scores:
    """Score predicted label maps against references.

    Args:
        prediction: A label map (file, volume, or array (i, j, k)), or a folder of them.
        reference: The same, a case, or a dataset in any layout. In folders and datasets, cases
            are matched by name.
        labels: Label name to its value or values in the references; None takes a dataset's
            labels, or every value that a reference holds, as label_1, label_2, ... A label called
            "ignore", here or in the dataset, is not scored: see `ignored_values`.
        affine: For arrays: (4, 4) from their indices to RAS+ millimetres. An array beside a
            volume or file lies on its grid and needs none.
        prediction_labels: Values in the predictions, for names whose values differ there; None
            takes those of files that name them: nnU-Net's dataset.json, leanseg's own record, or
            a label table in NIfTI headers.
        settings: Tolerance and policies; None for the defaults.
        allow_missing: Score references without a prediction as empty predictions.
        ignored_values: Values in the references of voxels of which nothing is known; they count
            in no metric.
        lesions: Names of labels whose lesions are scored one by one, too; see `lesion_scores`.
        geometry: For files: which of a NIfTI header's forms counts, as in `leanseg.read`.
        n_workers: Threads that score cases side by side; 0 works in this one.

    Returns:
        The scores.

    Raises:
        GeometryError: If two grids differ, or an array lacks its affine.
        LeansegError: If a file cannot be read or is no label map, or labels are not valid.

    Example:
        >>> truth = leanseg.read("phantoms/labelsTr/phantom_0000.nii.gz")
        >>> shifted = truth.with_array(np.roll(truth.array, 1, axis=0))
        >>> scores = leanseg.evaluate(shifted, truth, {"liver": 1})
        >>> 0.5 < scores["liver"].dice < 1
        True
    """
    options: dict[str, Any] = {"settings": settings, "lesions": lesions, "n_workers": n_workers}
    if isinstance(prediction, str | Path) and isinstance(reference, str | Path):
        matched = match_cases(prediction, reference, allow_missing=allow_missing)
        chosen, of_predictions = choose_labels(matched, labels, prediction_labels)
        pairs = [pair.read_as(geometry) for pair in matched.pairs]
        ignored = choose_ignored(matched, chosen, ignored_values)
        return evaluate_cases(
            pairs, chosen, prediction_labels=of_predictions, ignored_values=ignored, **options
        )
    truth = reference if isinstance(reference, Case) else _volume(reference, prediction, affine)
    guess = _volume(prediction, reference, affine)
    name = truth.name if isinstance(truth, Case) else "case"
    annotated = None
    if isinstance(truth, Case) and truth.annotated is not None and labels is not None:
        known = normalise_labels(labels)
        annotated = frozenset(v for label in known if truth.annotates(label) for v in known[label])
    pair = CasePair(name, guess, truth, annotated).read_as(geometry)
    return evaluate_cases(
        [pair],
        labels,
        prediction_labels=prediction_labels,
        ignored_values=ignored_values,
        **options,
    )


def _volume(
    label_map: LabelMap, other: LabelMap | Case, affine: NDArray[np.float64] | None
) -> Path | Volume:
    if isinstance(label_map, str | Path):
        return Path(label_map)
    if isinstance(label_map, Volume):
        return label_map
    if affine is not None:
        return Volume(label_map, affine)
    if isinstance(other, np.ndarray):
        msg = "label maps in arrays need an affine (4, 4) to RAS+ mm, which says how they lie"
        raise GeometryError(msg)
    return Volume(label_map, _read(other, "the reference")[0].affine)


def choose_labels(
    matched: MatchedCases, labels: Labels | None, prediction_labels: Labels | None
) -> tuple[Labels | None, Labels | None]:
    """The labels to score and their values in the predictions, as far as they are known.

    Those that are given, else the references'. Where something beside the predictions, or in them,
    names their values: of these labels only the ones that it names, with its values, unless values
    in the predictions are given. Where labels share values, as an organ and the tumour inside it,
    a region of the predictions is taken with what lies inside it.
    """
    wanted = matched.labels if labels is None else labels
    if wanted is None or prediction_labels is not None:
        return wanted, prediction_labels
    scored = {name: values for name, values in wanted.items() if not is_ignore(name)}
    every = [value for values in scored.values() for value in np.atleast_1d(values)]
    recorded = recorded_labels(
        matched.predictions, scored, whole_regions=len(every) > len(set(every))
    )
    if recorded is None:
        return wanted, None
    # Of the predictions the one called "ignore" is not asked.
    return {n: v for n, v in wanted.items() if n in recorded or is_ignore(n)}, recorded


def choose_ignored(
    matched: MatchedCases, labels: Labels | None, ignored_values: Sequence[int] = ()
) -> tuple[int, ...]:
    """The ignored values: those given, and of a dataset those that no label is made of."""
    named = (
        {value for values in normalise_labels(labels).values() for value in values}
        if labels
        else set()
    )
    return (*ignored_values, *(value for value in matched.ignored_values if value not in named))


def evaluate_cases(
    pairs: Iterable[CasePair],
    labels: Labels | None = None,
    *,
    prediction_labels: Labels | None = None,
    settings: EvaluationSettings | None = None,
    ignored_values: Sequence[int] = (),
    lesions: Sequence[str] = (),
    n_workers: int = 0,
    on_case: Callable[[str], None] = lambda name: None,
) -> Scores:
    """Score pairs of label maps; as `evaluate`.

    Args:
        pairs: The two label maps of each case, every case once.
        labels: As `evaluate`.
        prediction_labels: As `evaluate`.
        settings: As `evaluate`.
        ignored_values: As `evaluate`.
        lesions: As `evaluate`.
        n_workers: As `evaluate`. The scores do not depend on it.
        on_case: Called with the name of each case when it is done, in the order of `pairs`.

    Returns:
        The scores, in the order of `pairs`, then of the labels.

    Raises:
        LeansegError: As `evaluate`.
    """
    pairs = tuple(pairs)
    settings = settings or EvaluationSettings()
    if not pairs:
        raise DatasetError("there are no cases to score; give at least one pair of label maps")
    ignored = set(ignored_values)
    if labels is not None:
        given = normalise_labels(labels)
        ignored.update(v for name, values in given.items() if is_ignore(name) for v in values)
        in_reference = normalise_labels(
            {name: values for name, values in given.items() if not is_ignore(name)}
        )
    else:
        in_reference = _find_labels(pairs, ignored, n_workers)
    require_not_ignored(in_reference, sorted(ignored))
    if lesions:
        _require_lesions(lesions, in_reference)
    prediction_labels = {n: v for n, v in (prediction_labels or {}).items() if not is_ignore(n)}
    in_prediction = merge_prediction_labels(in_reference, prediction_labels)
    score = partial(
        _score_case,
        labels=in_reference,
        prediction_labels=in_prediction,
        settings=settings,
        ignored_values=sorted(ignored),
        lesions=lesions,
    )
    scores: list[LabelScore] = []
    of_lesions: list[LesionScores] = []
    notes: list[str] = []
    with closing(in_order(score, pairs, n_workers)) as results:
        for pair, (of_case, found, said) in zip(pairs, results, strict=True):
            scores += of_case
            of_lesions += found
            notes += said
            on_case(pair.name)
    recorded = asdict(settings)
    if prediction_labels:
        recorded["prediction_labels"] = {name: list(v) for name, v in in_prediction.items()}
    if ignored:
        recorded["ignored_values"] = sorted(ignored)
    said_once = tuple(dict.fromkeys(notes))
    return Scores(in_reference, tuple(scores), recorded, said_once, tuple(of_lesions))


def _require_lesions(lesions: Sequence[str], labels: LabelValues) -> None:
    require_panoptica()
    unknown = next((name for name in lesions if name not in labels), None)
    if unknown is not None:
        raise LeansegError(
            f"lesions of {unknown!r} cannot be scored: it is none of the labels to score "
            f"({', '.join(labels)}); name one of these"
        )


def _find_labels(pairs: Sequence[CasePair], ignored: set[int], n_workers: int) -> LabelValues:
    values = sorted(set().union(*in_order(_reference_values, pairs, n_workers)) - ignored)
    if not values:
        raise LeansegError(
            "the references hold only background; name the labels to score, such as liver=1"
            f" (first of them: {pairs[0].name})"
        )
    return {f"label_{value}": (value,) for value in values}


def _reference_values(pair: CasePair) -> set[int]:
    label, _ = _read(pair.reference, pair.name)
    return {int(value) for value in np.unique(label.array) if value > 0}


def _read(
    label_map: VolumeLike | Case, name: str, labels: LabelValues | None = None
) -> tuple[Volume, list[str]]:
    """A label map, and what is to be said of the headers of its files."""
    if isinstance(label_map, Case):
        # Some labels have no place in the world but their scan's.
        image, label = load_case(label_map)
        if label is None:
            raise DatasetError(f"case {name} has no labels; leave it out")
        volumes = [image, label]
    else:
        label = as_label_map(read_source(VolumeSource.of(label_map)))
        volumes = [label]
    require_few_values(label, sum(map(len, (labels or {}).values())))
    return label, [told(f"{volume.path}: {note}") for volume in volumes for note in volume.notes]


def _score_case(
    pair: CasePair,
    labels: LabelValues,
    prediction_labels: LabelValues,
    settings: EvaluationSettings,
    ignored_values: Sequence[int],
    lesions: Sequence[str],
) -> tuple[list[LabelScore], list[LesionScores], list[str]]:
    """The scores of a case and of its lesions, and notes on its files."""
    reference, notes = _read(pair.reference, pair.name, labels)
    # A label that the case does not annotate is unknown, not absent.
    known = {
        name: values
        for name, values in labels.items()
        if pair.annotated is None or pair.annotated.issuperset(values)
    }
    if not known:
        return [], [], notes
    if pair.prediction is None:
        array = np.zeros_like(reference.array)
    else:
        prediction, more = _read(pair.prediction, pair.name, labels)
        array, notes = on_grid_of(reference, prediction).array, [*notes, *more]
    scores = evaluate_masks(
        array,
        reference.array,
        reference.affine,
        known,
        prediction_labels={name: prediction_labels[name] for name in known},
        settings=settings,
        ignored_values=ignored_values,
    )
    missing = "no prediction file, scored as empty" if pair.prediction is None else None
    scored = [
        replace(score, case=pair.name, note="; ".join(filter(None, (missing, score.note))) or None)
        for score in scores
    ]
    of_lesions = []
    for label in (name for name in known if name in lesions):
        values = prediction_labels[label], known[label]
        masks = mask_pair(array, reference.array, values, ignored_values)
        found = lesion_scores(*masks, reference.affine)
        of_lesions.append(replace(found, label=label, case=pair.name))
    return scored, of_lesions, notes
