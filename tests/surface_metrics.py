"""Surface metrics of two whole masks, as `evaluate_masks` puts them together."""

from __future__ import annotations

from leanseg.evaluation.surface import axes_mm, crop_to_surfaces, distances_between
from leanseg.evaluation.surfels import surface_dice_between


def surface_distances(prediction, reference, spacing_mm, scan_border="surface"):
    crops = crop_to_surfaces(prediction, reference, scan_border)
    return None if crops is None else distances_between(*crops, axes_mm(spacing_mm))


def surface_dice(prediction, reference, spacing_mm, tolerance_mm, scan_border="surface"):
    crops = crop_to_surfaces(prediction, reference, scan_border)
    if crops is None:
        return None
    return surface_dice_between(*crops, axes_mm(spacing_mm), tolerance_mm)
