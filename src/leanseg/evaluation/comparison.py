"""Two sets of scores of the same cases against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanseg.errors import LeansegError
from leanseg.evaluation.metrics import METRIC_NAMES
from leanseg.evaluation.scores import Scores


@dataclass(frozen=True)
class Comparison:
    """A metric of one label, second minus first, over the cases that both define.

    Attributes:
        n: How many cases these are.
        mean_difference: Mean of the differences.
        median_difference: Their median.
        p_value: Of Wilcoxon's signed-rank test, two-sided; 1 where nothing differs. Not
            corrected for the number of labels that are compared.
    """

    n: int
    mean_difference: float
    median_difference: float
    p_value: float


def compare(first: Scores, second: Scores, metric: str = "dice") -> dict[str, Comparison]:
    """Compare two sets of scores case by case (paired).

    Args:
        first: Scores.
        second: Scores of the same cases, by name.
        metric: One of `METRIC_NAMES`.

    Returns:
        The comparison of each label that both have.

    Raises:
        LeansegError: If the metric is not known, or a label has no case in common.

    Example:
        >>> ours = leanseg.evaluate("phantoms/labelsTr", "phantoms")
        >>> leanseg.compare(ours, ours)["liver"]
        Comparison(n=4, mean_difference=0.0, median_difference=0.0, p_value=1.0)
    """
    from scipy.stats import wilcoxon

    if metric not in METRIC_NAMES:
        msg = f"metric {metric!r} is not known; choose one of {', '.join(METRIC_NAMES)}"
        raise LeansegError(msg)
    result = {}
    for label in (label for label in first.labels if label in second.labels):
        values = [
            {score.case: score.metrics[metric] for score in scores.of_label(label)}
            for scores in (first, second)
        ]
        pairs = [(values[0][case], values[1].get(case)) for case in values[0]]
        differences = np.array([b - a for a, b in pairs if a is not None and b is not None])
        if not len(differences):
            msg = f"no case has {metric} of {label!r} in both; compare scores of the same cases"
            raise LeansegError(msg)
        same = not differences.any()
        result[label] = Comparison(
            n=len(differences),
            mean_difference=float(differences.mean()),
            median_difference=float(np.median(differences)),
            p_value=1.0 if same else float(wilcoxon(differences).pvalue),
        )
    return result
