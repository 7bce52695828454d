"""Every metric of two label maps on one grid, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError, LeansegError
from leanseg.evaluation.labels import LabelValues, normalise_labels
from leanseg.evaluation.metrics import METRIC_NAMES
from leanseg.evaluation.overlap import Values, overlap_metrics
from leanseg.evaluation.policy import EvaluationSettings, apply_empty_policy
from leanseg.evaluation.surface import Mask, Spacing, crop_to_surfaces, distances_between
from leanseg.evaluation.surfels import surface_dice_between


@dataclass(frozen=True)
class LabelScore:
    """The metrics of one label in one case.

    Attributes:
        label: Name of the label.
        metrics: Metric name to value, None where it is undefined.
        note: Why values are undefined or set by the policy, else None.
        case: Name of the case; "" where masks were scored without one.
    """

    label: str
    metrics: Mapping[str, float | None]
    note: str | None = None
    case: str = ""


def evaluate_masks(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing_mm: Sequence[float],
    labels: Mapping[str, int | Sequence[int]],
    *,
    prediction_labels: Mapping[str, int | Sequence[int]] | None = None,
    settings: EvaluationSettings | None = None,
) -> list[LabelScore]:
    """Score a predicted label map against a reference on the same grid.

    Args:
        prediction: Integers (or booleans), shape (i, j, k).
        reference: Integers (or booleans) of the same shape.
        spacing_mm: Distance between voxel centres along the three axes.
        labels: Label name to the value, or the values merged into it.
        prediction_labels: The same for the prediction, for names whose values differ there.
        settings: Tolerance and policies; None for the defaults.

    Returns:
        One entry per label, in the order of `labels`.

    Raises:
        GeometryError: If the shapes differ or are not 3-D, or a spacing is not positive.
        LeansegError: If labels or values are not as above.
    """
    in_reference = normalise_labels(labels)
    in_prediction = merge_prediction_labels(in_reference, prediction_labels)
    maps = check_label_map(prediction), check_label_map(reference)
    if prediction.ndim != 3 or prediction.shape != reference.shape:
        msg = (
            f"the prediction has shape {prediction.shape} and the reference {reference.shape}; "
            "both must be 3-D label maps on one grid"
        )
        raise GeometryError(msg)
    x, y, z = (float(value) for value in spacing_mm)
    if not (np.isfinite([x, y, z]).all() and min(x, y, z) > 0):
        msg = f"spacing {(x, y, z)} mm is not positive; correct the header"
        raise GeometryError(msg)
    spacing = (x, y, z)
    if maps[0].flags.f_contiguous and maps[1].flags.f_contiguous:
        # NIfTI arrays are in Fortran order; transposed they are as fast to walk as any, and no
        # metric depends on the order of the axes.
        maps, spacing = (maps[0].T, maps[1].T), (z, y, x)
    return [
        _score_label(
            name,
            _mask(maps[0], in_prediction[name]),
            _mask(maps[1], in_reference[name]),
            spacing,
            settings or EvaluationSettings(),
        )
        for name in in_reference
    ]


def merge_prediction_labels(
    labels: LabelValues, prediction_labels: Mapping[str, int | Sequence[int]] | None
) -> LabelValues:
    """The values of every label in predictions: those of the references unless given.

    Raises:
        LeansegError: If a name is given for predictions that the labels do not have.
    """
    if not prediction_labels:
        return labels
    given = normalise_labels(prediction_labels)
    unknown = [name for name in given if name not in labels]
    if unknown:
        msg = (
            f"prediction label {unknown[0]!r} is none of the labels to score "
            f"({', '.join(labels)}); use the same names for both"
        )
        raise LeansegError(msg)
    return {name: given.get(name, values) for name, values in labels.items()}


def check_label_map(array: NDArray[Any], name: str = "the label map") -> NDArray[Any]:
    """The array as integers.

    Raises:
        LeansegError: If it holds fractions, NaN or infinity.
    """
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind in "ui":
        return array
    if array.dtype.kind == "f":
        fractions = ~(array == np.rint(array)) | np.isinf(array)
        if not fractions.any():
            return array.astype(np.int64 if np.abs(array).max(initial=0) > 2**31 - 1 else np.int32)
        value = array[fractions][0]
        msg = f"{name} holds the value {value:g}, so it is no label map; give integer labels"
        raise LeansegError(msg)
    msg = f"{name} has values of type {array.dtype}, so it is no label map; give integer labels"
    raise LeansegError(msg)


def _mask(label_map: NDArray[Any], values: tuple[int, ...]) -> Mask:
    held = [value for value in values if value <= np.iinfo(label_map.dtype).max]
    mask: Mask = label_map == held[0] if held else np.zeros(label_map.shape, dtype=np.bool_)
    for value in held[1:]:
        mask |= label_map == value
    return mask


def _score_label(
    label: str, prediction: Mask, reference: Mask, spacing_mm: Spacing, settings: EvaluationSettings
) -> LabelScore:
    crops = crop_to_surfaces(prediction, reference, settings.scan_border)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    masks = (prediction, reference) if crops is None else crops
    # All in their order, those of surfaces still undefined.
    metrics: Values = dict.fromkeys(METRIC_NAMES)
    metrics |= overlap_metrics(*masks, n_voxels=prediction.size, voxel_ml=voxel_ml)
    extent = (np.array(prediction.shape) - 1) * np.array(spacing_mm)
    note = apply_empty_policy(metrics, float(np.linalg.norm(extent)), settings)
    if crops is not None and note is None:
        tolerance_mm = settings.surface_tolerance_mm
        metrics["surface_dice"] = surface_dice_between(*crops, spacing_mm, tolerance_mm)
        distances = distances_between(*crops, spacing_mm)
        if distances is None:
            note = "no surface inside the scan"
        else:
            for name in ("hausdorff_mm", "hausdorff95_mm", "assd_mm"):
                metrics[name] = getattr(distances, name)
    return LabelScore(label=label, metrics=metrics, note=note)
