"""The slices of a CT scan that show the body at all, found cheaply and with caution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanseg.frames.view import ScanView, coarse_voxels
from leanseg.volumes import Box

# Fat, muscle and bone lie above; air, foam and most of a table's core below.
_TISSUE_HU = -500
# Looked for on a grid this coarse.
_STEP_MM = 3.0
# Tables, blankets and cables are thinner than this; necks and wrists are not.
_THICKNESS_MM = 15.0
# Less of so thick tissue is no body, but half of a small field of view may be.
_AREA_MM2 = 200.0
# How far beyond the first and last slice with a body its neighbours count as body too.
_MARGIN_MM = 10.0


def find_body(view: ScanView) -> Box | None:
    """The box from the first to the last slice in which tissue is thicker than a table.

    Args:
        view: The scan; its first channel in HU.

    Returns:
        A box as large as the scan in-plane, in voxels of the view; None where there is no body.
    """
    spacing_mm = view.spacing_mm
    steps = [max(1, round(_STEP_MM / mm)) for mm in spacing_mm[:2]]
    cell_mm = steps[0] * spacing_mm[0], steps[1] * spacing_mm[1]
    size = [max(1, round(_THICKNESS_MM / mm)) for mm in cell_mm]
    coarse = coarse_voxels(view, (*steps, 1))
    half = 0.5 * coarse.shape[0] * coarse.shape[1]
    least = max(1.0, min(_AREA_MM2 / (cell_mm[0] * cell_mm[1]), half))
    # The corners of squares that hold tissue alone; each stands for a cell of their middle.
    squares = (
        _eroded(_eroded(coarse[:, :, k] > _TISSUE_HU, 0, size[0]), 1, size[1])
        for k in range(coarse.shape[2])
    )
    found = np.flatnonzero([np.count_nonzero(square) >= least for square in squares])
    if not found.size:
        return None
    margin = int(np.ceil(_MARGIN_MM / spacing_mm[2]))
    first, last = (
        max(0, int(found[0]) - margin),
        min(len(coarse[0, 0]), int(found[-1]) + margin + 1),
    )
    return Box((0, 0, first), (*view.shape[:2], last))


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
