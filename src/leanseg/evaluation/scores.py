"""The scores of many cases: summary, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from leanseg.errors import FileFormatError
from leanseg.evaluation.labels import LabelValues
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import DEFINITIONS, METRIC_NAMES, METRICS, Metric
from leanseg.volumes.atomic import written_whole

_FORMAT = "leanseg-scores"
_VERSION = 1

Summary = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Scores:
    """Scores per case and label, with what they were computed by.

    Attributes:
        labels: Label name to the values merged into it, in the references.
        cases: One entry per case and label.
        settings: `EvaluationSettings` as a mapping, and further choices.
    """

    labels: LabelValues
    cases: tuple[LabelScore, ...]
    settings: Mapping[str, Any]

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

    def of_label(self, label: str) -> list[LabelScore]:
        """The entries of one label, in the order of the cases."""
        return [score for score in self.cases if score.label == label]

    def to_json(self, path: str | Path) -> None:
        """Write everything, whole or not at all; undefined values become null.

        Raises:
            LeansegError: If the file cannot be written.
        """
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "definitions": DEFINITIONS,
            "settings": dict(self.settings),
            "labels": {
                name: values[0] if len(values) == 1 else list(values)
                for name, values in self.labels.items()
            },
            "cases": [
                {
                    "case": score.case,
                    "label": score.label,
                    "metrics": dict(score.metrics),
                    "note": score.note,
                }
                for score in self.cases
            ],
            "summary": self.summary,
        }
        _write(Path(path), json.dumps(content, indent=1, allow_nan=False) + "\n")

    def to_csv(self, path: str | Path) -> None:
        """Write one line per case and label; undefined values are empty cells.

        Raises:
            LeansegError: If the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["case", "label", *METRIC_NAMES, "note"])
        for score in self.cases:
            values = (score.metrics[name] for name in METRIC_NAMES)
            cells = ["" if value is None else repr(value) for value in values]
            writer.writerow([score.case, score.label, *cells, score.note or ""])
        _write(Path(path), text.getvalue())


def read_scores(path: str | Path) -> Scores:
    """Read a file that `Scores.to_json` wrote.

    Raises:
        FileFormatError: If the file is missing, damaged, or something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path} does not exist; write it with `leanseg evaluate --output`"
        raise FileFormatError(msg) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} is not readable as JSON ({error}); evaluate again"
        raise FileFormatError(msg) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        msg = f"{path} is not a score file; write one with `leanseg evaluate --output`"
        raise FileFormatError(msg)
    if content.get("version") != _VERSION:
        msg = (
            f"{path} has score format version {content.get('version')!r}, this leanseg reads "
            f"version {_VERSION}; evaluate again or update leanseg"
        )
        raise FileFormatError(msg)
    try:
        return Scores(
            labels={
                name: tuple(values) if isinstance(values, list) else (int(values),)
                for name, values in content["labels"].items()
            },
            cases=tuple(
                LabelScore(
                    label=entry["label"],
                    metrics={name: entry["metrics"][name] for name in METRIC_NAMES},
                    note=entry["note"],
                    case=entry["case"],
                )
                for entry in content["cases"]
            ),
            settings=dict(content["settings"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path} is a damaged score file ({error!r}); evaluate again"
        raise FileFormatError(msg) from error


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
    if not values or metric.better is None:
        return None, None
    badness = {"higher": lambda v: -v, "lower": lambda v: v, "near zero": abs}[metric.better]
    return max(values, key=lambda entry: badness(entry[1]))


def _write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
