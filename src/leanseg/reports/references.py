"""Scans and label maps of a run's cases, read the way training saw them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, load_case, read_source
from leanseg.errors import DatasetError, LeansegError
from leanseg.reports.prior import CentrePrior, covered_fraction, prior_from_fractions
from leanseg.reports.run import Run
from leanseg.volumes import Volume, reorient

# Enough for a stable average; more would only make the report slower.
MAX_PRIOR_CASES = 40


def read_reference(run: Run, case: str) -> Volume:
    """A case's label map with the plan's values 1..N, in its scan's orientation.

    Labels that the case does not annotate are left out.

    Raises:
        DatasetError: If the run does not know the case, or the case has no label map.
        LeansegError: If a file cannot be read.
    """
    entry = _entry(run, case)
    described = Case.from_json(entry)
    if not described.label_parts:
        msg = f"{case}: has no label map"
        raise DatasetError(msg)
    _, volume = load_case(_existing(described))
    assert volume is not None  # it has label parts
    merged: Mapping[str, Sequence[int]] = run.data.get("label_values", {})
    values: Mapping[str, int] = run.data.get("labels", {})
    planned = np.zeros(volume.array.shape, dtype=np.uint16)
    for name, value in values.items():
        if name in annotated_labels(run, case):
            planned[np.isin(volume.array, merged.get(name, [value]))] = value
    return volume.with_array(planned)


def read_image(run: Run, case: str) -> Volume:
    """The first channel that the network sees of a case's scan.

    Raises:
        DatasetError: If the run does not know the case.
        LeansegError: If the file cannot be read.
    """
    entry = _entry(run, case)
    wanted = (entry.get("channel_indices") or [0])[0]
    for source in _existing(Case.from_json(entry)).images:
        volume = read_source(source)
        if wanted < volume.n_channels:
            if volume.array.ndim == 3:
                return volume
            return Volume(volume.array[..., wanted], volume.affine, volume.path)
        wanted -= volume.n_channels
    msg = f"{case}: its scan has fewer channels than the run used"
    raise DatasetError(msg)


def annotated_labels(run: Run, case: str) -> Collection[str]:
    """Names of the plan's labels that a case annotates."""
    known: Collection[str] = _entry(run, case).get("annotated_classes", run.labels)
    return known


def _entry(run: Run, case: str) -> Mapping[str, Any]:
    entry = run.case_entry(case)
    if entry is None:
        msg = f"{case}: data.json does not say where its files are"
        raise DatasetError(msg)
    return entry


def _existing(case: Case) -> Case:
    for source in case.sources:
        if not source.exists():
            msg = f"{case.name}: {source.path} is not there any more"
            raise DatasetError(msg)
    return case


def middle_dice(run: Run) -> tuple[dict[tuple[str, str], float | None], str | None]:
    """Dice of the centre prior for every scored case and label.

    Returns:
        (case, label) to Dice, for those that could be computed; and a sentence saying why none
        or not all could, or None.
    """
    found: dict[tuple[str, str], float | None] = {}
    # A case trains in several folds; its small maps are made once.
    small: dict[str, dict[str, NDArray[np.float32]]] = {}
    for fold in run.folds:
        if not fold.cases:
            continue
        if fold.index >= len(run.splits):
            return found, "The training cases are not known (no splits.json)."
        training = run.splits[fold.index].train[:MAX_PRIOR_CASES]
        try:
            priors = _priors(run, training, small)
            for case in dict.fromkeys(score.case for score in fold.cases):
                reference = _upright(run, case)
                known = annotated_labels(run, case)
                for label, prior in priors.items():
                    if prior is not None and label in known:
                        value = run.data["labels"][label]
                        found[case, label] = prior.dice(reference == value)
        except (LeansegError, OSError) as error:
            return found, f"{error}."
    return found, None


def _priors(
    run: Run, training: Sequence[str], small: dict[str, dict[str, NDArray[np.float32]]]
) -> dict[str, CentrePrior | None]:
    values: Mapping[str, int] = run.data.get("labels", {})
    for case in training:
        if case not in small:
            reference = _upright(run, case)
            small[case] = {
                label: covered_fraction(reference == value) for label, value in values.items()
            }
    return {
        label: prior_from_fractions(
            [small[case][label] for case in training if label in annotated_labels(run, case)]
        )
        for label in values
    }


def _upright(run: Run, case: str) -> NDArray[np.uint16]:
    return reorient(read_reference(run, case), "LPS").array
