"""Findings, and the registry of the checks that make them.

A check is a function that yields a `Found` for everything that it finds, registered by a
decorator that says what kind of finding that is, how severe, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from leanseg.datasets.check.facts import CaseFacts, Survey

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
    """A kind of finding, and the check that makes it.

    Attributes:
        severity: "error" stops training, "warning" should be looked at, "note" is for the record.
        title: A few words for tables.
        advice: What to do, as a sentence.
        check: Finds it among the cases.
    """

    severity: Severity
    title: str
    advice: str
    check: DatasetCheck


# By name; of two findings as severe, the one whose check is registered first is told first.
KINDS: dict[str, Kind] = {}


def dataset_check(
    kind: str, severity: Severity, title: str, advice: str
) -> Callable[[DatasetCheck], DatasetCheck]:
    """Register a check that compares cases; see `Kind` for the arguments."""

    def register(check: DatasetCheck) -> DatasetCheck:
        KINDS[kind] = Kind(severity, title, advice, check)
        return check

    return register


def case_check(
    kind: str, severity: Severity, title: str, advice: str
) -> Callable[[CaseCheck], CaseCheck]:
    """Register a check that looks at one case after another; see `Kind` for the arguments."""

    def register(check: CaseCheck) -> CaseCheck:
        @dataset_check(kind, severity, title, advice)
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
        severity: That of its kind.
        message: One sentence: which file, which value.
        details: The numbers, as values that JSON has.
    """

    case: str | None
    kind: str
    severity: Severity
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The kind in a few words."""
        return KINDS[self.kind].title

    @property
    def advice(self) -> str:
        """What to do about findings of this kind."""
        return KINDS[self.kind].advice

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        return {**asdict(self), "advice": self.advice}


def find_all(survey: Survey) -> tuple[Finding, ...]:
    """What all registered checks find, the worst first."""
    findings = [
        Finding(found.case, name, kind.severity, found.message, found.details)
        for name, kind in KINDS.items()
        for found in kind.check(survey)
    ]
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
