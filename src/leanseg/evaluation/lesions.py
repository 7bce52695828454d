"""Scores of single lesions: which were found, how well, and what was found that is none.

Components and their matching are panoptica's (Kofler et al., arXiv:2312.02608), which is imported
where lesions are asked for, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import require_package
from leanseg.evaluation.surface import Mask, Spacing, axes_mm
from leanseg.volumes import bounding_box

# Of diameters, in mm: a bin has its lower bound.
DIAMETERS_MM = {"<10": (0, 10), "10-20": (10, 20), "20-30": (20, 30), ">=30": (30, np.inf)}

LESION_DEFINITIONS: dict[str, str] = {
    "lesion": "a connected component of the reference mask, voxels joined by faces, edges or "
    "corners (26 neighbours); of the prediction likewise",
    "lesion_found": "at least one component of the prediction is matched to the lesion: each goes "
    "to the lesion with which its IoU is largest, of those that it overlaps by a voxel or more. "
    "Several may be matched to one lesion, but none to two: of two lesions under one component, "
    "one is found",
    "lesion_dice": "Dice of the lesion and all that is matched to it; 0 where it is not found",
    "lesion_diameter_mm": "diameter of the sphere that has the lesion's volume",
    "lesion_sensitivity": "lesions found / lesions, of all scans",
    "lesion_precision": "components of the prediction that are matched / all of them, of all scans",
    "lesion_false_positives": "components of the prediction that overlap no lesion",
}


@dataclass(frozen=True)
class Lesion:
    """A lesion of the reference; `LESION_DEFINITIONS` says what each number is.

    Attributes:
        volume_ml: Its volume.
        diameter_mm: Of the sphere of this volume.
        found: Whether something predicted is matched to it.
        dice: Of what is matched to it.
    """

    volume_ml: float
    diameter_mm: float
    found: bool
    dice: float


@dataclass(frozen=True)
class LesionScores:
    """The lesions of one label in one case.

    Attributes:
        lesions: Those of the reference, from the largest to the smallest.
        n_predicted: Components of the prediction.
        false_positives: How many of these overlap no lesion.
        label: Name of the label; "" where masks were scored without one.
        case: Name of the case, likewise.
    """

    lesions: tuple[Lesion, ...]
    n_predicted: int
    false_positives: int
    label: str = ""
    case: str = ""


def require_panoptica() -> None:
    """Refuse lesion scores where what they need is missing.

    Raises:
        MissingDependencyError: If panoptica is not installed.
    """
    require_package("panoptica", "scoring lesions", "leanseg[lesions]")


def lesion_scores(prediction: Mask, reference: Mask, affine: Spacing) -> LesionScores:
    """Score every lesion of two masks on one grid, as `LESION_DEFINITIONS` says.

    Args:
        prediction: Shape (i, j, k), without ignored voxels.
        reference: The same shape, likewise.
        affine: (4, 4) to RAS+ mm, or the distance between voxel centres along the three axes.

    Raises:
        MissingDependencyError: If panoptica is not installed.

    Example:
        >>> from leanseg.evaluation import lesion_scores
        >>> truth = np.zeros((20, 20, 20), dtype=bool)
        >>> truth[2:6, 2:6, 2:6] = truth[12:14, 12:14, 12:14] = True
        >>> found = lesion_scores(truth & (np.arange(20) < 10), truth, (1, 1, 2))
        >>> [(lesion.volume_ml, lesion.found) for lesion in found.lesions]
        [(0.128, True), (0.016, False)]
    """
    require_panoptica()
    box = bounding_box(prediction | reference)
    if box is None:
        return LesionScores((), 0, 0)
    parts = tuple(slice(*ends) for ends in zip(box.start, box.stop, strict=True))
    matched, truth, n_found = _matched(prediction[parts], reference[parts])
    sizes = np.bincount(truth.ravel())
    # What is matched to a lesion has its number, what overlaps none a number past the last.
    matched_sizes = np.bincount(matched.ravel(), minlength=len(sizes))
    shared = np.bincount(truth[truth == matched], minlength=len(sizes))
    voxel_mm3 = abs(float(np.linalg.det(axes_mm(affine))))
    lesions = [
        Lesion(
            volume_ml=float(size * voxel_mm3 / 1000),
            diameter_mm=float(np.cbrt(6 * size * voxel_mm3 / np.pi)),
            found=bool(both),
            dice=float(2 * both / (size + matched_size)),
        )
        for size, matched_size, both in zip(
            sizes[1:], matched_sizes[1 : len(sizes)], shared[1:], strict=True
        )
    ]
    lesions.sort(key=lambda lesion: (-lesion.volume_ml, -lesion.dice))
    return LesionScores(tuple(lesions), n_found, int(np.count_nonzero(matched_sizes[len(sizes) :])))


def _matched(prediction: Mask, reference: Mask) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Components of both masks, those of the prediction numbered as the lesions they match.

    And how many components the prediction has.
    """
    from panoptica import (
        CCABackend,
        ConnectedComponentsInstanceApproximator,
        NaiveThresholdMatching,
        SemanticPair,
    )

    masks = (np.ascontiguousarray(mask, dtype=np.uint8) for mask in (prediction, reference))
    components = ConnectedComponentsInstanceApproximator(CCABackend.cc3d)
    pair = components.approximate_instances(SemanticPair(*masks))
    n_found = len(pair.pred_labels)
    if n_found and pair.ref_labels:
        # Only what overlaps is matched, and so an IoU of 0 asks for nothing more.
        match = NaiveThresholdMatching(matching_threshold=0.0, allow_many_to_one=True)
        pair = match.match_instances(pair)
    return pair.prediction_arr, pair.reference_arr, n_found


def summarise_lesions(scores: Sequence[LesionScores]) -> dict[str, Any]:
    """The lesions of all cases of a label together; ratios without a denominator are None.

    Returns:
        n_scans, n_predicted, false_positives, false_positives_per_scan and precision; n_lesions,
        n_found, sensitivity and mean dice, and the same four by_diameter_mm.
    """
    lesions = [lesion for score in scores for lesion in score.lesions]
    n_predicted = sum(score.n_predicted for score in scores)
    wrong = sum(score.false_positives for score in scores)
    return {
        "n_scans": len(scores),
        "n_predicted": n_predicted,
        "false_positives": wrong,
        "false_positives_per_scan": wrong / len(scores) if scores else None,
        "precision": 1 - wrong / n_predicted if n_predicted else None,
        **_found(lesions),
        "by_diameter_mm": {
            name: _found([lesion for lesion in lesions if low <= lesion.diameter_mm < high])
            for name, (low, high) in DIAMETERS_MM.items()
        },
    }


def _found(lesions: Sequence[Lesion]) -> dict[str, Any]:
    n_found = sum(lesion.found for lesion in lesions)
    return {
        "n_lesions": len(lesions),
        "n_found": n_found,
        "sensitivity": n_found / len(lesions) if lesions else None,
        "dice": fmean(lesion.dice for lesion in lesions) if lesions else None,
    }
