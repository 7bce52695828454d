"""A gate for results without ground truth: PASS, REVIEW or REJECT, and why.

A result is held against what is usual in known cases, and against the Dice that a network's
confidence and the distance from the usual let expect. The thresholds lie in the model file, where
`leanseg calibrate` puts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from leanseg.errors import ModelFileError
from leanseg.evaluation.conformal import error_scale
from leanseg.files import write_csv, write_json
from leanseg.frames.view import Scan
from leanseg.inference.facts import Facts, Look, Values, fact_of
from leanseg.modelfile import LabelGate, ModelFile, ReviewRecord, UsualRange
from leanseg.plan import Plan
from leanseg.volumes import Volume

Verdict = Literal["PASS", "REVIEW", "REJECT"]
_SEVERITY: Final[Mapping[Verdict, int]] = {"PASS": 0, "REVIEW": 1, "REJECT": 2}
# Of fewer known cases nobody can say what is usual.
LEAST_KNOWN: Final = 5
# How far a value may lie outside of what is usual before a line is extended no further.
MOST_DISTANCE: Final = 3.0
Usual = Mapping[str, UsualRange]


class Distance(NamedTuple):
    """How far a result lies from what is usual, and its furthest fact.

    Attributes:
        value: Root of the sum of squares over facts, each in terms of the width of what is usual;
            0 within.
        furthest: Of one fact alone.
        name: Of the fact; "" where there is none.
        seen: What it is.
        usual: What it usually is.
    """

    value: float = 0.0
    furthest: float = 0.0
    name: str = ""
    seen: float = 0.0
    usual: UsualRange | None = None

    def words(self, label: str) -> str:
        """As a sentence without its full stop."""
        assert self.usual is not None
        if self.name == "is_ct":
            seen, known = ("", "none") if self.seen else ("no ", "some")
            return f"there are {seen}grey values of air as in CT, but {known} in known cases"
        fact = fact_of(self.name)
        ends = (self.usual.low, self.usual.high)
        low, high = np.exp(ends) if fact.is_log else ends
        unit = f" {fact.unit}" if fact.unit else ""
        whose = f"{label}: " if label else ""
        return (
            f"{whose}{fact.words} is {self.seen:.3g}{unit}, but {low:.3g} to {high:.3g}{unit} in "
            "known cases"
        )


def distance_of(values: Values, usual: Usual) -> Distance:
    """How far facts lie from what is usual; facts that nobody knows do not count."""
    found, squares = Distance(), 0.0
    for name, value in values.items():
        if (known := usual.get(name)) is not None:
            seen = fact_of(name).seen(value)
            away = max(known.low - seen, seen - known.high, 0.0) / known.spread
            squares += away**2
            if away > found.furthest:
                found = Distance(0.0, away, name, value, known)
    return found._replace(value=float(np.sqrt(squares)))


@dataclass(frozen=True)
class LabelReview:
    """The verdict on one label.

    Attributes:
        verdict: PASS, REVIEW or REJECT.
        reason: One sentence.
        expected: The Dice that is expected; None where nothing lets expect any.
        low: Where its interval begins.
        high: Where it ends.
        coverage: Of the interval.
        distance: From what is usual.
        confidence: The network's own.
    """

    verdict: Verdict
    reason: str
    expected: float | None
    low: float | None
    high: float | None
    coverage: float
    distance: float
    confidence: float | None


@dataclass(frozen=True)
class Review:
    """The verdict on a scan's result: that of its worst label.

    Attributes:
        verdict: PASS, REVIEW or REJECT.
        reason: One sentence.
        labels: By name.
        seconds: What it took.
    """

    verdict: Verdict
    reason: str
    labels: Mapping[str, LabelReview]
    seconds: float = 0.0


def require_review(file: ModelFile) -> ReviewRecord:
    """The thresholds in a model file.

    Raises:
        ModelFileError: If it has none.
    """
    if file.provenance.review is None:
        path = file.path or "the model"
        raise ModelFileError(
            f"{path}: has no thresholds for reviews; make a model that has them with "
            f"'leanseg calibrate {path} DATA -o NEW', where DATA are labelled scans"
        )
    return file.provenance.review


def judge(record: ReviewRecord, facts: Facts, confidence: Mapping[str, float | None]) -> Review:
    """Hold a result against the thresholds of its model.

    Args:
        record: The thresholds.
        facts: Of the result.
        confidence: Of each label, as `leanseg.inference.confidence` says it; labels that are
            missing have none that is known.
    """
    scan = distance_of(facts.scan, record.scan)
    labels = {
        name: _of_label(name, gate, record.n_known, facts.labels[name], scan, confidence.get(name))
        for name, gate in record.labels.items()
    }
    # Of equal verdicts that which expects least.
    worst = max(labels.values(), key=lambda each: (_SEVERITY[each.verdict], -(each.expected or 0)))
    return Review(worst.verdict, worst.reason, labels)


def expected_dice(gate: LabelGate, confidence: float, distance: float) -> float:
    """What the line says, within 0 and 1."""
    intercept, slope, by_distance = gate.line
    value = intercept + slope * confidence + by_distance * min(distance, MOST_DISTANCE)
    return min(max(value, 0.0), 1.0)


def _of_label(
    name: str,
    gate: LabelGate,
    n_known: int,
    facts: Values,
    scan: Distance,
    confidence: float | None,
) -> LabelReview:
    own = distance_of(facts, gate.usual)
    distance = float(np.hypot(scan.value, own.value))
    expected = low = high = None
    if facts and confidence is not None:
        expected = expected_dice(gate, confidence, distance)
        half = gate.error * error_scale(expected)
        low, high = max(expected - half, 0.0), min(expected + half, 1.0)

    def made(verdict: Verdict, reason: str) -> LabelReview:
        return LabelReview(
            verdict, reason, expected, low, high, gate.coverage, distance, confidence
        )

    furthest, whose = max((scan, ""), (own, name), key=lambda each: each[0].furthest)
    odd = furthest.words(whose) if distance else ""
    if distance > gate.reject_at and n_known >= LEAST_KNOWN:
        return made("REJECT", odd)
    if not facts:
        if not gate.may_be_empty:
            return made("REJECT", f"{name}: the label is missing, but all known cases have it")
        return made("REVIEW", f"{name}: the label is missing")
    if expected is None:
        return made(
            "REVIEW",
            f"{name}: the network's confidence is not known, and so is the expected Dice",
        )
    assert low is not None and high is not None
    dice = (
        f"{name}: Dice is expected at {expected:.2f} ({100 * gate.coverage:.0f} % interval "
        f"{low:.2f} to {high:.2f})"
    )
    if high < gate.acceptable:
        return made("REJECT", f"{dice}, all of it below {gate.acceptable:.2f}")
    if n_known < LEAST_KNOWN:
        return made("REVIEW", f"{n_known} known case(s) are too few to say what is usual")
    if distance > gate.review_at:
        return made("REVIEW", odd)
    if expected < gate.pass_at:
        return made("REVIEW", f"{dice}, below {gate.pass_at:.2f}")
    return made("PASS", f"{dice}, and nothing is unusual")


@dataclass(frozen=True)
class Reviewer:
    """Reviews results of a model.

    Attributes:
        plan: The model's.
        record: Its thresholds.
        is_ct: Whether its grey values are Hounsfield units.
    """

    plan: Plan
    record: ReviewRecord
    is_ct: bool

    @classmethod
    def of(cls, file: ModelFile) -> Reviewer:
        """That of a model.

        Raises:
            ModelFileError: If it has no thresholds.
        """
        return cls(file.plan, require_review(file), file.plan.is_ct)

    def look(self, scan: Scan, channel_indices: Sequence[int] | None) -> Look:
        """What is kept of a scan while it is predicted."""
        return Look(scan, self.plan, channel_indices, is_ct=self.is_ct)

    def review(self, look: Look, labels: Volume, confidence: Mapping[str, float | None]) -> Review:
        """The verdict on a label map on the scan's grid."""
        values = self.plan.final.label_values
        return judge(self.record, look.facts(labels.array, labels.orientation, values), confidence)


def write_reviews(
    reviews: Mapping[str, Review], record: ReviewRecord, json_path: Path, csv_path: Path
) -> None:
    """Write all reviews of a folder, with the thresholds; as CSV a line per case and label.

    Raises:
        LeansegError: If a file cannot be written.
    """
    cases = {name: asdict(review) for name, review in reviews.items()}
    content = {
        "format": "leanseg-review",
        "version": 1,
        "cases": cases,
        "thresholds": record.model_dump(mode="json"),
    }
    write_json(json_path, content)
    rows = [*_rows(reviews)]
    write_csv(csv_path, [*rows[0]] if rows else ["case"], rows)


def _rows(reviews: Mapping[str, Review]) -> Iterator[dict[str, Any]]:
    for case, review in reviews.items():
        for label, each in review.labels.items():
            yield {"case": case, "label": label, **asdict(each)}
