"""The result of a check: findings, facts of every case, and whether training may start."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pydantic_core import to_jsonable_python

from leanseg.datasets.check.facts import CaseFacts, Survey
from leanseg.datasets.check.findings import SEVERITIES, Finding
from leanseg.files import write_text


@dataclass(frozen=True)
class LabelUse:
    """How the cases of a dataset use one label.

    Attributes:
        name: The label.
        value: In the label maps.
        annotated: Number of cases that annotate it.
        held: Number of those that hold it.
        median_ml: Median volume where it is held; None where no case holds it.
    """

    name: str
    value: int
    annotated: int
    held: int
    median_ml: float | None


@dataclass(frozen=True, eq=False)
class CheckResult:
    """What `leanseg check` found.

    Attributes:
        name: The dataset's name.
        root: Its folder or zip file.
        layout: The layout that read it.
        survey: Labels, channels and facts of every case.
        findings: The worst first.
    """

    name: str
    root: Path
    layout: str
    survey: Survey
    findings: tuple[Finding, ...]

    @property
    def cases(self) -> tuple[CaseFacts, ...]:
        """Facts of every case, sorted by name."""
        return self.survey.cases

    @property
    def may_train(self) -> bool:
        """Whether there is no error; warnings do not stop training."""
        return not any(finding.severity == "error" for finding in self.findings)

    def of_case(self, name: str) -> tuple[Finding, ...]:
        """The findings that concern one case."""
        return tuple(
            finding
            for finding in self.findings
            if finding.case == name or name in finding.details.get("cases", ())
        )

    def shortened(self, message: str) -> str:
        """A message with paths told from the dataset's own folder on."""
        return message.replace(f"{self.root}{os.sep}", "")

    def counts(self) -> dict[str, int]:
        """Number of findings of each severity."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def label_uses(self) -> tuple[LabelUse, ...]:
        """How many cases annotate and hold each label."""
        uses = []
        for name, value in self.survey.labels.items():
            cases = [case for case in self.cases if case.annotates(name)]
            volumes = [
                label.volume_ml for case in cases for label in case.labels if label.value == value
            ]
            middle = float(median(volumes)) if volumes else None
            uses.append(LabelUse(name, value, len(cases), len(volumes), middle))
        return tuple(uses)

    def summary(self) -> str:
        """One sentence: how many cases, what was found, whether training may start."""
        n_cases = _counted(len(self.cases), "case")
        found = [_counted(n, severity) for severity, n in self.counts().items() if n]
        if not found:
            return f"{self.name}: {n_cases}, nothing wrong."
        listed = " and ".join(", ".join(found).rsplit(", ", 1))
        if self.may_train:
            return f"{self.name}: {n_cases}, {listed}; training may start."
        kinds = dict.fromkeys(f.title for f in self.findings if f.severity == "error")
        return (
            f"{self.name}: {n_cases}, {listed}; "
            f"training may not start before the errors are corrected ({', '.join(kinds)})."
        )

    def to_json(self, path: str | Path, *, show_identifiers: bool = False) -> None:
        """Write everything but the pictures as JSON, atomically.

        Raises:
            LeansegError: If the file cannot be written.
        """
        text = json.dumps(self.content(show_identifiers=show_identifiers), indent=1)
        write_text(Path(path), text + "\n", in_new_folder=False)

    def content(self, *, show_identifiers: bool = False) -> dict[str, Any]:
        """Everything but the pictures, as values that JSON has."""
        hidden = {"thumbnail"} if show_identifiers else {"thumbnail", "patient"}
        content = {
            "dataset": self.name,
            "root": str(self.root),
            "layout": self.layout,
            "may_train": self.may_train,
            "summary": self.summary(),
            "counts": self.counts(),
            "channels": self.survey.channels,
            "labels": self.label_uses(),
            "findings": self.findings,
            "cases": self.cases,
        }
        # JSON has no NaN and no infinity: they become null.
        plain: dict[str, Any] = to_jsonable_python(
            content, exclude={"cases": {"__all__": hidden}}, inf_nan_mode="null"
        )
        return plain


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
