"""The metrics by name: what each one is, exactly, so that two tables can be compared.

Public libraries give different numbers under the same name; every score file therefore carries
these sentences. `metrics.csv` has a line for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from leanseg.files import packaged_rows

Better = Literal["higher", "lower", "near zero", ""]


@dataclass(frozen=True)
class Metric:
    """One number that is reported per case and label.

    Attributes:
        name: Key in score files.
        title: Short heading for tables.
        unit: "mm", "ml", "%" or "" for a fraction.
        better: Which values are good; "" where the value is only a description.
        definition: What is computed, in words.
    """

    name: str
    title: str
    unit: str
    better: Better
    definition: str


METRICS: tuple[Metric, ...] = tuple(
    Metric(**cast("Any", row)) for row in packaged_rows("leanseg.evaluation", "metrics.csv")
)

METRIC_NAMES: tuple[str, ...] = tuple(metric.name for metric in METRICS)
DEFINITIONS: dict[str, str] = {metric.name: metric.definition for metric in METRICS}

# What papers report as Dice, SEN and SPE (paper 003, equations 18 to 20): the metrics, per case or
# pooled, over whole scans or labelled slices.
PUBLISHED = ("dice", "sensitivity", "specificity")
WHERE = {"": "whole scans", "_labelled_slices": "labelled slices"}
POOLED: dict[str, str] = {
    f"{name}_pooled{where}": f"{name} of one label over the voxels of all cases together "
    f"({among}): counts added up before the ratio is taken, so that large scans and organs weigh "
    "more"
    for name in PUBLISHED
    for where, among in WHERE.items()
}

# Over all labels of a case, from the scores of each.
TOTALS: dict[str, str] = {
    "dice_micro": "2 TP / (2 TP + FP + FN) over the scan, with the counts of all labels added up",
    "dice_macro": "mean of the labels' Dice, of those in which it is defined",
}
