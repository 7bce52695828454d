"""The scores of many cases: summary, JSON and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median, stdev
from types import SimpleNamespace
from typing import Any, Literal

from pydantic import BaseModel, field_validator

from leanseg.errors import FileFormatError
from leanseg.evaluation.labels import LabelValues
from leanseg.evaluation.lesions import LESION_DEFINITIONS, Lesion, LesionScores, summarise_lesions
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import (
    DEFINITIONS,
    METRIC_NAMES,
    METRICS,
    POOLED,
    PUBLISHED,
    TOTALS,
    WHERE,
    Metric,
)
from leanseg.evaluation.overlap import Counts, Values
from leanseg.files import read_parsed, write_csv, write_text

Summary = dict[str, dict[str, dict[str, Any]]]
# What files have of which no score is older.
_LATER = {"log_hausdorff_pixels", *(f"{name}_labelled_slices" for name in PUBLISHED)}


class _ScoreFile(BaseModel):
    """What a score file holds besides definitions and summary, which follow from the rest."""

    format: Literal["leanseg-scores"] = "leanseg-scores"
    version: Literal[2] = 2
    definitions: dict[str, str] = DEFINITIONS | TOTALS | POOLED | LESION_DEFINITIONS
    settings: dict[str, Any]
    labels: LabelValues
    cases: tuple[LabelScore, ...]
    summary: Summary
    total: dict[str, dict[str, Any]] = {}
    pooled: dict[str, Values] = {}
    lesions: tuple[LesionScores, ...] = ()
    lesion_summary: dict[str, dict[str, Any]] = {}
    notes: tuple[str, ...] = ()

    @field_validator("cases")
    @classmethod
    def _every_metric(cls, cases: tuple[LabelScore, ...]) -> tuple[LabelScore, ...]:
        if any(set(case.metrics) | _LATER != set(METRIC_NAMES) for case in cases):
            raise ValueError("the metrics are others")
        return tuple(
            replace(case, metrics=dict.fromkeys(METRIC_NAMES) | dict(case.metrics))
            for case in cases
        )


@dataclass(frozen=True)
class Scores:
    """Scores per case and label, with what they were computed by.

    Attributes:
        labels: Label name to the values merged into it, in the references.
        cases: One entry per case and label.
        settings: `EvaluationSettings` as a mapping, and further choices.
        notes: What is to be said of the files' headers, a sentence each.
        lesions: One entry per case and label of which lesions were asked for.

    Example:
        >>> scores = leanseg.evaluate("phantoms/labelsTr", "phantoms")
        >>> scores["liver"].dice, len(scores.of_label("liver"))
        (1.0, 4)
        >>> scores.to_csv("scores.csv")
    """

    labels: LabelValues
    cases: tuple[LabelScore, ...]
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    lesions: tuple[LesionScores, ...] = ()

    def __getitem__(self, label: str) -> SimpleNamespace:
        """A label's metrics as attributes, such as `scores["liver"].dice`.

        The value of one case, the mean of several; undefined metrics are None.
        """
        summary = self.summary[label]
        return SimpleNamespace(**{name: summary[name]["mean"] for name in METRIC_NAMES})

    @cached_property
    def summary(self) -> Summary:
        """Label to metric to mean, sd (n - 1), median, worst, worst_case, n and n_undefined.

        The worst case is the lowest value, the highest distance or the largest absolute volume
        difference; descriptive metrics have none. Without defined values all but the counts
        are None, and so is the sd of a single value.
        """
        return {
            label: {
                metric.name: _summarise(
                    metric,
                    [(score.case, score.metrics[metric.name]) for score in self.of_label(label)],
                )
                for metric in METRICS
            }
            for label in self.labels
        }

    @cached_property
    def total(self) -> dict[str, dict[str, Any]]:
        """Dice over all labels of a case, "dice_micro" and "dice_macro", summarised likewise."""
        by_case: dict[str, list[LabelScore]] = {}
        for score in self.cases:
            by_case.setdefault(score.case, []).append(score)
        dice = METRICS[METRIC_NAMES.index("dice")]
        return {
            name: _summarise(dice, [(case, of(scores)) for case, scores in by_case.items()])
            for name, of in (("dice_micro", _micro_dice), ("dice_macro", _macro_dice))
        }

    @cached_property
    def pooled(self) -> dict[str, Values]:
        """Label to "dice_pooled", "dice_pooled_labelled_slices", ... over all cases' voxels.

        None where a case was scored before voxels were counted, or a ratio has no denominator.
        """
        return {label: _pooled(self.of_label(label)) for label in self.labels}

    @cached_property
    def lesion_summary(self) -> dict[str, dict[str, Any]]:
        """Label to `summarise_lesions` of its cases, for labels of which lesions were scored."""
        by_label: dict[str, list[LesionScores]] = {}
        for scores in self.lesions:
            by_label.setdefault(scores.label, []).append(scores)
        return {label: summarise_lesions(scores) for label, scores in by_label.items()}

    def of_label(self, label: str) -> list[LabelScore]:
        """The entries of one label, in the order of the cases."""
        return [score for score in self.cases if score.label == label]

    def to_json(self, path: str | Path) -> None:
        """Write everything, whole or not at all; undefined values become null.

        Raises:
            LeansegError: If the file cannot be written.
        """
        content = _ScoreFile(
            settings=dict(self.settings),
            labels=self.labels,
            cases=self.cases,
            summary=self.summary,
            total=self.total,
            pooled=self.pooled,
            lesions=self.lesions,
            lesion_summary=self.lesion_summary,
            notes=self.notes,
        )
        write_text(Path(path), content.model_dump_json(indent=1) + "\n", in_new_folder=False)

    def to_csv(self, path: str | Path) -> None:
        """Write one line per case and label; undefined values are empty cells.

        Raises:
            LeansegError: If the file cannot be written.
        """
        write_csv(
            path,
            ["case", "label", *METRIC_NAMES, "note"],
            (
                {"case": score.case, "label": score.label, "note": score.note, **score.metrics}
                for score in self.cases
            ),
        )

    def lesions_to_csv(self, path: str | Path) -> None:
        """Write one line per lesion of the references, numbered by size in each case.

        Raises:
            LeansegError: If the file cannot be written.
        """
        write_csv(
            path,
            ["case", "label", "lesion", *(field.name for field in fields(Lesion))],
            (
                {"case": scores.case, "label": scores.label, "lesion": number, **asdict(lesion)}
                for scores in self.lesions
                for number, lesion in enumerate(scores.lesions, 1)
            ),
        )


def read_scores(path: str | Path) -> Scores:
    """Read a file that `Scores.to_json` wrote.

    Raises:
        FileFormatError: If the file is missing, damaged, or something else.
    """
    remedy = "write it again with `leanseg evaluate --output`"
    content = read_parsed(Path(path), _ScoreFile.model_validate_json, remedy, FileFormatError)
    return Scores(content.labels, content.cases, content.settings, content.notes, content.lesions)


def _pooled(scores: Sequence[LabelScore]) -> Values:
    values: Values = dict.fromkeys(POOLED)
    for where in WHERE:
        counted: list[Counts | None] = [getattr(score, f"counts{where}") for score in scores]
        known = [counts for counts in counted if counts is not None]
        if known and len(known) == len(counted):
            ratios = sum(known, start=Counts(0, 0, 0, 0)).published
            values |= {f"{name}_pooled{where}": value for name, value in ratios.items()}
    return values


def _macro_dice(scores: Sequence[LabelScore]) -> float | None:
    defined = [score.metrics["dice"] for score in scores if score.metrics["dice"] is not None]
    return fmean(defined) if defined else None


def _micro_dice(scores: Sequence[LabelScore]) -> float | None:
    """Of a case; the sizes of both masks weigh the labels' Dice, which gives the counts again."""
    sizes = [
        (score.metrics["reference_ml"] or 0) + (score.metrics["prediction_ml"] or 0)
        for score in scores
    ]
    if not any(sizes):
        # All masks are empty: what the policy says of each it says of all.
        return _macro_dice(scores)
    parts = ((score.metrics["dice"] or 0) * n for score, n in zip(scores, sizes, strict=True))
    return sum(parts) / sum(sizes)


def _summarise(metric: Metric, values: list[tuple[str, float | None]]) -> dict[str, Any]:
    defined = [(case, value) for case, value in values if value is not None]
    numbers = [value for _, value in defined]
    worst_case, worst = _worst(metric, defined)
    return {
        "mean": fmean(numbers) if numbers else None,
        "sd": stdev(numbers) if len(numbers) > 1 else None,
        "median": median(numbers) if numbers else None,
        "worst": worst,
        "worst_case": worst_case,
        "n": len(numbers),
        "n_undefined": len(values) - len(numbers),
    }


def _worst(metric: Metric, values: list[tuple[str, float]]) -> tuple[str | None, float | None]:
    if not values or not metric.better:
        return None, None
    badness = {"higher": lambda v: -v, "lower": lambda v: v, "near zero": abs}[metric.better]
    return max(values, key=lambda entry: badness(entry[1]))
