"""Which slices of a CT scan show the body at all, found cheaply and with caution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Fat, muscle and bone lie above; air, foam and most of a table's core below.
_TISSUE_HU = -500
# Looked for on a grid this coarse.
_STEP_MM = 3.0
# Tables, blankets and cables are thinner than this; necks and wrists are not.
_THICKNESS_MM = 15.0
# Less of so thick tissue is no body, but half of a small field of view may be.
_AREA_MM2 = 200.0
# How far around a slice with a body its neighbours count as body too.
_MARGIN_MM = 10.0


def body_slices(channel: NDArray[Any], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Slices in which tissue is thicker than a table, and their neighbours.

    Args:
        channel: Hounsfield units (row, column, slice).
        spacing_mm: Along these axes.

    Returns:
        For each slice, whether there may be body in it.
    """
    row_step, column_step = (max(1, round(_STEP_MM / mm)) for mm in spacing_mm[:2])
    cell_mm = row_step * spacing_mm[0], column_step * spacing_mm[1]
    coarse = channel[::row_step, ::column_step]
    size = [max(1, round(_THICKNESS_MM / mm)) for mm in cell_mm]
    half = 0.5 * coarse.shape[0] * coarse.shape[1]
    least = max(1.0, min(_AREA_MM2 / (cell_mm[0] * cell_mm[1]), half))
    found = np.zeros(channel.shape[2], dtype=bool)
    for k in range(channel.shape[2]):
        # The corners of squares that hold tissue alone; each stands for a cell of their middle.
        tissue = coarse[:, :, k] > _TISSUE_HU
        found[k] = np.count_nonzero(_eroded(_eroded(tissue, 0, size[0]), 1, size[1])) >= least
    margin = int(np.ceil(_MARGIN_MM / spacing_mm[2]))
    near = np.flatnonzero(found)
    for slice_index in near:
        found[max(0, slice_index - margin) : slice_index + margin + 1] = True
    return found


def _eroded(mask: NDArray[np.bool_], axis: int, size: int) -> NDArray[np.bool_]:
    """Where `size` cells in a row are set; what lies outside the image counts as set.

    A scan that shows a part of the body alone is cut off in the middle of tissue.
    """
    before, after = (size - 1) // 2, size // 2
    padding = [(0, 0), (0, 0)]
    padding[axis] = (before, after)
    padded = np.pad(mask, padding, constant_values=True)
    n = mask.shape[axis]
    result = mask.copy()
    for shift in range(size):
        result &= padded[shift : shift + n] if axis == 0 else padded[:, shift : shift + n]
    return result
