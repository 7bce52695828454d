"""The check itself: cases are read one after another or side by side, then checked together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from leanseg.datasets.case import Dataset
from leanseg.datasets.check import (  # noqa: F401  importing them registers the checks
    check_anatomy,
    check_files,
    check_identity,
    check_intensity,
    check_labels,
)
from leanseg.datasets.check.facts import Survey
from leanseg.datasets.check.findings import find_all
from leanseg.datasets.check.reading import read_case
from leanseg.datasets.check.result import CheckResult
from leanseg.datasets.split_files import Split
from leanseg.runtime import in_order


def check(
    dataset: Dataset,
    *,
    workers: int = 0,
    thumbnails: bool = False,
    on_case: Callable[[str], None] = lambda name: None,
    splits: Sequence[Split] | None = None,
) -> CheckResult:
    """Read every case of a dataset and say what is wrong with it.

    Broken cases are findings, not exceptions. A worker holds one scan, or a label map and what it
    is merged into, at a time.

    Args:
        dataset: The dataset.
        workers: Threads that read cases; 0 reads them in this one.
        thumbnails: Whether to make a picture of each case.
        on_case: Called with the name of each case that is done.
        splits: Splits that the cases will be used in: patients in two parts become errors.

    Raises:
        RecipeError: If the number of workers is negative.
        MissingDependencyError: If a package is needed to read the cases.

    Example:
        >>> empty_scan = np.zeros((8, 8, 4)), np.eye(4)
        >>> result = leanseg.check(leanseg.Dataset([leanseg.Case(empty_scan)]))
        >>> result.may_train
        False
        >>> for finding in result.findings:
        ...     print(finding.severity, finding.message)
        error none of the cases has a label map
        error channel_0 of case_000 is 0 everywhere
    """
    facts = []
    read = partial(read_case, channels=dataset.channels, thumbnails=thumbnails)
    with closing(in_order(read, dataset.cases, workers)) as read_cases:
        for case in read_cases:
            facts.append(case)
            on_case(case.name)
    # Reading these names from the label maps would read each map twice, and stop at a bad one.
    declared = isinstance(dataset.labels, dict)
    values = {label.value for case in facts for label in case.labels}
    named = dict(dataset.labels) if declared else {f"label_{v}": v for v in sorted(values)}
    survey = Survey(named, declared, dataset.channels, tuple(facts), tuple(splits or ()))
    return CheckResult(dataset.name, dataset.root, dataset.layout, survey, find_all(survey))
