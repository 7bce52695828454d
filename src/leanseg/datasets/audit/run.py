"""The audit itself: cases are read one after another or side by side, then checked together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from leanseg.datasets.audit.facts import CaseFacts, Failure, Survey
from leanseg.datasets.audit.reading import inspect_case
from leanseg.datasets.audit.registry import CHECKS
from leanseg.datasets.audit.result import Audit
from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.splits import Split
from leanseg.errors import RecipeError


def audit(
    dataset: Dataset,
    *,
    workers: int = 0,
    thumbnails: bool = False,
    on_case: Callable[[str], None] | None = None,
    splits: Sequence[Split] | None = None,
) -> Audit:
    """Read every case of a dataset and say what is wrong with it.

    Broken cases are findings, not exceptions. A process holds one scan, or a label map and what
    it is merged into, at a time.

    Args:
        dataset: The dataset.
        workers: Processes that read cases; 0 reads them in this one.
        thumbnails: Whether to make a picture of each case.
        on_case: Called with the name of each case that is done.
        splits: Splits that the cases will be used in: patients on both sides become errors.

    Raises:
        RecipeError: If the number of workers is negative.
        MissingDependencyError: If a package is needed to read the cases.
    """
    if workers < 0:
        msg = f"workers is {workers}; choose 0 or more"
        raise RecipeError(msg)
    # Reading these names from the label maps would read each map twice, and stop at a bad one.
    declared = isinstance(dataset.labels, dict)
    facts: list[CaseFacts] = []
    for case in _inspected(dataset, workers, thumbnails):
        facts.append(case)
        if on_case is not None:
            on_case(case.name)
    facts.sort(key=lambda case: case.name)
    if declared:
        labels = dict(dataset.labels)
    else:
        values = sorted({label.value for case in facts for label in case.labels})
        labels = {f"label_{value}": value for value in values}
    survey = Survey(labels, declared, dataset.channels, tuple(facts), tuple(splits or ()))
    findings = [finding for check in CHECKS for finding in check(survey)]
    findings.sort(key=lambda finding: finding.rank())
    return Audit(
        name=dataset.name,
        root=dataset.root,
        layout=dataset.layout,
        survey=survey,
        findings=tuple(findings),
    )


def _inspected(dataset: Dataset, workers: int, thumbnails: bool) -> Iterator[CaseFacts]:
    """Facts of all cases, as they come."""
    channels = dataset.channels
    if workers <= 1 or len(dataset.cases) == 1:
        for case in dataset.cases:
            yield inspect_case(case, channels, thumbnails=thumbnails)
        return
    lost: list[Case] = []
    with _pool(min(workers, len(dataset.cases))) as pool:
        jobs = {
            pool.submit(inspect_case, case, channels, thumbnails=thumbnails): case
            for case in dataset.cases
        }
        try:
            for job in as_completed(jobs):
                try:
                    yield job.result()
                except BrokenProcessPool:
                    lost.append(jobs[job])
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    # One of these ended its process, and the others went with it: each gets one of its own.
    for case in lost:
        yield _alone(case, channels, thumbnails)


def _alone(case: Case, channels: tuple[str, ...], thumbnails: bool) -> CaseFacts:
    with _pool(1) as pool:
        try:
            return pool.submit(inspect_case, case, channels, thumbnails=thumbnails).result()
        except BrokenProcessPool:
            path = case.images[0].path
            msg = f"{path}: reading this case ended the process, perhaps for want of memory"
            failure = Failure("file-unreadable", f"{msg}; check its files")
            return CaseFacts(case.name, has_labels=bool(case.label_parts), failures=(failure,))


def _pool(workers: int) -> ProcessPoolExecutor:
    # A fresh interpreter for each worker: a fork may copy locks that other threads hold.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
