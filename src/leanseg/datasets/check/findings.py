"""Findings, and the registry of the checks that make them.

A check is a function that yields a `Found` for everything that it finds, registered by a
decorator. What kind of finding that is, how severe, and what to do about it stands in kinds.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from leanseg.datasets.check.facts import CaseFacts, Survey
from leanseg.files import packaged_rows

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Found(NamedTuple):
    """What a check yields.

    Attributes:
        message: One sentence: which file, which value.
        details: The numbers, as values that JSON has. No identifiers out of a DICOM header.
        case: The case's name; None for a finding about the dataset. Checks of single cases leave
            it out.
    """

    message: str
    details: Mapping[str, Any] = {}
    case: str | None = None


CaseCheck = Callable[[CaseFacts, Survey], Iterable[Found]]
DatasetCheck = Callable[[Survey], Iterable[Found]]


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: "error" stops training, "warning" should be looked at, "note" is for the record.
        title: A few words for tables.
        advice: What to do, as a sentence.
    """

    severity: Severity
    title: str
    advice: str


# In the order in which findings are told, the worst first.
KINDS: dict[str, Kind] = {
    row.pop("kind"): Kind(**cast("Any", row))
    for row in packaged_rows("leanseg.datasets.check", "kinds.csv")
}
CHECKS: dict[str, DatasetCheck] = {}


def dataset_check(kind: str) -> Callable[[DatasetCheck], DatasetCheck]:
    """Register a check that compares cases, for a kind of finding that kinds.csv describes."""

    def register(check: DatasetCheck) -> DatasetCheck:
        CHECKS[kind] = check
        return check

    return register


def case_check(kind: str) -> Callable[[CaseCheck], CaseCheck]:
    """Register a check that looks at one case after another."""

    def register(check: CaseCheck) -> CaseCheck:
        @dataset_check(kind)
        def check_all(survey: Survey) -> Iterable[Found]:
            for case in survey.cases:
                for found in check(case, survey):
                    yield found._replace(case=case.name)

        return check

    return register


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a dataset, or worth knowing.

    Attributes:
        case: The case's name; None for a finding about the dataset.
        kind: Name of its kind in `KINDS`.
        severity: That of its kind, like the next two.
        title: The kind in a few words.
        advice: What to do about it.
        message: One sentence: which file, which value.
        details: The numbers, as values that JSON has.
    """

    case: str | None
    kind: str
    severity: Severity
    title: str
    advice: str
    message: str
    details: Mapping[str, Any]


def find_all(survey: Survey) -> tuple[Finding, ...]:
    """What all registered checks find, in the order of `KINDS`."""
    return tuple(
        Finding(found.case, name, kind.severity, kind.title, kind.advice, *found[:2])
        for name, kind in KINDS.items()
        for found in CHECKS[name](survey)
    )
