"""The metrics by name: what each one is, exactly, so that two tables can be compared.

Public libraries give different numbers under the same name; every score file therefore carries
these sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "near zero"]


@dataclass(frozen=True)
class Metric:
    """One number that is reported per case and label.

    Attributes:
        name: Key in score files.
        title: Short heading for tables.
        unit: "mm", "ml", "%" or "" for a fraction.
        better: Which values are good; None where the value is only a description.
        definition: What is computed, in words.
    """

    name: str
    title: str
    unit: str
    better: Better | None
    definition: str


_SURFACE = (
    "surface voxels are foreground voxels with at least one background face neighbour (6 "
    "neighbours), at their centres in mm; scan_border says whether the world outside the scan "
    "counts as background"
)

METRICS: tuple[Metric, ...] = (
    Metric("dice", "Dice", "", "higher", "2 TP / (2 TP + FP + FN), voxels counted over the scan"),
    Metric("iou", "IoU", "", "higher", "TP / (TP + FP + FN) (Jaccard index)"),
    Metric("sensitivity", "Sensitivity", "", "higher", "TP / (TP + FN) (recall)"),
    Metric(
        "specificity",
        "Specificity",
        "",
        "higher",
        "TN / (TN + FP) over all voxels of the scan; it depends on the field of view",
    ),
    Metric("precision", "Precision", "", "higher", "TP / (TP + FP) (positive predictive value)"),
    Metric(
        "volume_difference_ml",
        "Volume difference",
        "ml",
        "near zero",
        "predicted volume minus reference volume, signed",
    ),
    Metric(
        "relative_volume_difference_percent",
        "Relative volume difference",
        "%",
        "near zero",
        "100 (predicted volume - reference volume) / reference volume, signed",
    ),
    Metric(
        "hausdorff_mm",
        "Hausdorff",
        "mm",
        "lower",
        "largest distance from a surface voxel of either mask to the nearest surface voxel of "
        f"the other (maximum symmetric surface distance); {_SURFACE}; as MONAI",
    ),
    Metric(
        "hausdorff95_mm",
        "Hausdorff 95 %",
        "mm",
        "lower",
        "the larger of the two directed 95th percentiles (linear interpolation) of the distances "
        f"between surface voxels; {_SURFACE}; as MONAI. surface-distance weights by surface area "
        "and does not interpolate; MedPy takes the percentile of both directions pooled",
    ),
    Metric(
        "assd_mm",
        "ASSD",
        "mm",
        "lower",
        "average symmetric surface distance: mean over the distances of both directions pooled; "
        f"{_SURFACE}; as CHAOS (scan_border=open) and MONAI with symmetric=True "
        "(scan_border=surface). MedPy averages the two directed means",
    ),
    Metric(
        "surface_dice",
        "Surface Dice",
        "",
        "higher",
        "area of both surfaces that lies within surface_tolerance_mm of the other surface, "
        "divided by the area of both; surface elements are marching-cubes facets between voxel "
        "centres, placed at cell centres; as surface-distance (Nikolov et al., 2018)",
    ),
    Metric("reference_ml", "Reference", "ml", None, "volume of the reference mask"),
    Metric("prediction_ml", "Prediction", "ml", None, "volume of the predicted mask"),
)

METRIC_NAMES: tuple[str, ...] = tuple(metric.name for metric in METRICS)
DEFINITIONS: dict[str, str] = {metric.name: metric.definition for metric in METRICS}


def metric(name: str) -> Metric:
    """The metric called `name`.

    Raises:
        KeyError: If there is none.
    """
    for candidate in METRICS:
        if candidate.name == name:
            return candidate
    raise KeyError(name)
