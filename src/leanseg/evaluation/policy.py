"""What is scored how, and what a score is where a mask is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_type_hints

from leanseg.evaluation.overlap import Values
from leanseg.evaluation.surface import ScanBorder
from leanseg.registry import NotNegative, check_value

Empty = Literal["undefined", "perfect"]
OneEmptyDistance = Literal["undefined", "diagonal"]

_DISTANCES = ("hausdorff_mm", "hausdorff95_mm", "assd_mm")
_FRACTIONS = (
    "dice",
    "dice_labelled_slices",
    "iou",
    "sensitivity",
    "sensitivity_labelled_slices",
    "precision",
    "surface_dice",
)


@dataclass(frozen=True)
class EvaluationSettings:
    """Choices that change scores; they are written into every score file.

    Attributes:
        surface_tolerance_mm: Distance at which two surfaces still agree in surface Dice.
        empty: Scores of a label that neither mask holds: "undefined" (left out of means and
            counted), or "perfect" (Dice and the other fractions 1, distances 0).
        one_empty_distance: Distances where only one mask is empty: "undefined", or "diagonal",
            the largest distance that the scan has room for. Dice and surface Dice are 0.
        scan_border: Whether faces cut by the scan's border are surface ("surface", as MONAI
            and surface-distance) or not ("open", as the CHAOS challenge).

    Raises:
        RecipeError: If a value is not one of these.
    """

    surface_tolerance_mm: NotNegative = 1.0
    empty: Empty = "undefined"
    one_empty_distance: OneEmptyDistance = "undefined"
    scan_border: ScanBorder = "surface"

    def __post_init__(self) -> None:
        hints = get_type_hints(EvaluationSettings, include_extras=True)
        for name, annotation in hints.items():
            check_value("evaluation", "settings", name, annotation, getattr(self, name))


def apply_empty_policy(
    metrics: Values, diagonal_mm: float, settings: EvaluationSettings
) -> str | None:
    """Fill in, in place, what the policy says where one mask is or both are empty.

    Args:
        metrics: Scores of one label, None where a ratio has no denominator.
        diagonal_mm: Distance between opposite corner voxels of the scan.
        settings: The policy.

    Returns:
        A note for the score file, or None where neither mask is empty.
    """
    predicted_ml, reference_ml = metrics["prediction_ml"], metrics["reference_ml"]
    if predicted_ml and reference_ml:
        return None
    if not predicted_ml and not reference_ml:
        if settings.empty == "perfect":
            metrics.update(dict.fromkeys(_FRACTIONS, 1.0))
            metrics.update(dict.fromkeys(_DISTANCES, 0.0))
            metrics["relative_volume_difference_percent"] = 0.0
        return "both empty"
    # One surface exists and none of it is near the other.
    metrics["surface_dice"] = 0.0
    if settings.one_empty_distance == "diagonal":
        metrics.update(dict.fromkeys(_DISTANCES, diagonal_mm))
    if predicted_ml:
        return f"reference empty, {predicted_ml:.3g} ml predicted"
    return "prediction empty"
