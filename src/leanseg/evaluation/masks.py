"""Every metric of two label maps on one grid, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import log, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.load import label_array
from leanseg.errors import GeometryError, LeansegError
from leanseg.evaluation.labels import LabelValues, normalise_labels, require_not_ignored
from leanseg.evaluation.metrics import METRIC_NAMES
from leanseg.evaluation.overlap import Counts, Values, overlap_metrics
from leanseg.evaluation.policy import EvaluationSettings, apply_empty_policy
from leanseg.evaluation.surface import (
    Axes,
    Mask,
    Spacing,
    axes_mm,
    crop_to_surfaces,
    distances_between,
)
from leanseg.evaluation.surfels import surface_dice_between
from leanseg.volumes.axes import axis_codes


@dataclass(frozen=True)
class LabelScore:
    """The metrics of one label in one case.

    Attributes:
        label: Name of the label.
        metrics: Metric name to value, None where it is undefined.
        note: Why values are undefined or set by the policy, else None.
        case: Name of the case; "" where masks were scored without one.
        counts: Voxels behind the metrics; None in score files from before there were any.
        counts_labelled_slices: Those of the labelled slices alone.
    """

    label: str
    metrics: Mapping[str, float | None]
    note: str | None = None
    case: str = ""
    counts: Counts | None = None
    counts_labelled_slices: Counts | None = None


def evaluate_masks(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing_mm: Spacing,
    labels: Mapping[str, int | Sequence[int]],
    *,
    prediction_labels: Mapping[str, int | Sequence[int]] | None = None,
    settings: EvaluationSettings | None = None,
    ignored_values: Sequence[int] = (),
) -> list[LabelScore]:
    """Score a predicted label map against a reference on the same grid.

    Args:
        prediction: Whole numbers from 0 to 65535 (or booleans), shape (i, j, k).
        reference: The same, of the same shape.
        spacing_mm: Distance between voxel centres along the three axes, or the affine (4, 4), by
            which axes need not be at right angles.
        labels: Label name to the value, or the values merged into it.
        prediction_labels: The same for the prediction, for names whose values differ there.
        settings: Tolerance and policies; None for the defaults.
        ignored_values: Values in the reference of voxels of which nothing is known. They count in
            no metric, as if they were no part of the scan; for surfaces they are background in
            both maps.

    Returns:
        One entry per label, in the order of `labels`.

    Raises:
        GeometryError: If the shapes differ or are not 3-D, or a spacing is not positive.
        LeansegError: If labels or values are not as above, or an ignored value is a label's.
    """
    in_reference = normalise_labels(labels)
    require_not_ignored(in_reference, ignored_values)
    in_prediction = merge_prediction_labels(in_reference, prediction_labels)
    maps = label_array(prediction), label_array(reference)
    if prediction.ndim != 3 or prediction.shape != reference.shape:
        raise GeometryError(
            f"the prediction has shape {prediction.shape} and the reference {reference.shape}; "
            "both must be 3-D label maps on one grid"
        )
    axes = axes_mm(spacing_mm)
    along = _slice_axis(spacing_mm)
    is_right_angled = np.count_nonzero(axes) == 3
    if is_right_angled and maps[0].flags.f_contiguous and maps[1].flags.f_contiguous:
        # NIfTI arrays are in Fortran order; transposed they are as fast to walk as any, and no
        # metric depends on the order of the axes, nor on that of the world's. (On a sheared grid
        # the facets of a few cells would: a loop that is not flat has triangles of its own.)
        maps, axes, along = (maps[0].T, maps[1].T), axes[::-1, ::-1], 2 - along
    counted = ~_mask(maps[1], tuple(ignored_values)) if ignored_values else None
    scored = tuple(value for values in in_reference.values() for value in values)
    # Ignored values are no label's.
    labelled = [each.any() for each in np.moveaxis(_mask(maps[1], scored), along, 0)]
    slices = np.array(labelled, dtype=bool), along
    return [
        _score_label(
            name,
            _mask(maps[0], in_prediction[name]),
            _mask(maps[1], in_reference[name]),
            counted,
            slices,
            axes,
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
        raise LeansegError(
            f"prediction label {unknown[0]!r} is none of the labels to score "
            f"({', '.join(labels)}); use the same names for both"
        )
    return {name: given.get(name, values) for name, values in labels.items()}


def mask_pair(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    values: tuple[tuple[int, ...], tuple[int, ...]],
    ignored_values: Sequence[int] = (),
) -> tuple[Mask, Mask]:
    """One label's masks, both without ignored voxels.

    Args:
        prediction: As `evaluate_masks`.
        reference: As `evaluate_masks`.
        values: The label's values in the prediction and in the reference.
        ignored_values: As `evaluate_masks`.
    """
    maps = label_array(prediction), label_array(reference)
    masks = _mask(maps[0], values[0]), _mask(maps[1], values[1])
    if ignored_values:
        counted = ~_mask(maps[1], tuple(ignored_values))
        masks = masks[0] & counted, masks[1] & counted
    return masks


def _slice_axis(spacing_mm: Spacing) -> int:
    """Which axis axial slices lie along: by the affine, else the third."""
    given = np.asarray(spacing_mm, dtype=np.float64)
    if given.shape == (3,):
        return 2
    return next(axis for axis, code in enumerate(axis_codes(given)) if code in "IS")


def _mask(label_map: NDArray[Any], values: tuple[int, ...]) -> Mask:
    held = [value for value in values if value <= np.iinfo(label_map.dtype).max]
    mask: Mask = label_map == held[0] if held else np.zeros(label_map.shape, dtype=np.bool_)
    for value in held[1:]:
        mask |= label_map == value
    return mask


def _score_label(
    label: str,
    prediction: Mask,
    reference: Mask,
    counted: Mask | None,
    slices: tuple[Mask, int],
    axes: Axes,
    settings: EvaluationSettings,
) -> LabelScore:
    if counted is not None:
        prediction &= counted
        reference &= counted
    crops = crop_to_surfaces(prediction, reference, settings.scan_border)
    i, j, k = axes.T
    voxel_ml = abs(float(np.cross(i, j) @ k)) / 1000
    masks = (prediction, reference) if crops is None else crops
    # All in their order, those of surfaces still undefined.
    metrics: Values = dict.fromkeys(METRIC_NAMES)
    counts = Counts.of(*masks, _n_voxels(prediction, counted))
    metrics |= overlap_metrics(counts, voxel_ml)
    labelled, along = slices
    found, truth = (np.compress(labelled, mask, along) for mask in (prediction, reference))
    looked_at = None if counted is None else np.compress(labelled, counted, along)
    in_slices = Counts.of(found, truth, _n_voxels(found, looked_at))
    metrics |= {f"{name}_labelled_slices": v for name, v in in_slices.published.items()}
    extent = np.array(prediction.shape) - 1
    diagonals = [axes @ (extent * (1, *signs)) for signs in product((1, -1), repeat=2)]
    note = apply_empty_policy(metrics, float(max(map(np.linalg.norm, diagonals))), settings)
    if crops is not None and note is None:
        tolerance_mm = settings.surface_tolerance_mm
        metrics["surface_dice"] = surface_dice_between(*crops, axes, tolerance_mm)
        distances = distances_between(*crops, axes)
        if distances is None:
            note = "no surface inside the scan"
        else:
            for name in ("hausdorff_mm", "hausdorff95_mm", "assd_mm"):
                metrics[name] = getattr(distances, name)
    if hausdorff_mm := metrics["hausdorff_mm"]:
        pixel_mm = sqrt(prod(np.linalg.norm(np.delete(axes, along, axis=1), axis=0)))
        metrics["log_hausdorff_pixels"] = log(hausdorff_mm / pixel_mm)
    return LabelScore(label, metrics, note, counts=counts, counts_labelled_slices=in_slices)


def _n_voxels(scan: Mask, counted: Mask | None) -> int:
    return scan.size if counted is None else int(np.count_nonzero(counted))
