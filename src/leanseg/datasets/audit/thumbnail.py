"""Small pictures of a case: an axial slice through its labels, upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.audit.facts import ChannelFacts, Thumbnail
from leanseg.volumes import Volume, axis_view

_LONGEST_SIDE = 224
# Soft tissue, as abdominal scans are usually looked at.
_CT_WINDOW_HU = (-160.0, 240.0)


@dataclass(frozen=True, eq=False)
class SmallScan:
    """All axial slices of a scan, shrunk and windowed to a few percent of its memory.

    Attributes:
        grey: (i, j, k) uint8, LPS.
        affine: Of the scan itself in LPS, to RAS+ mm.
        step: Scan voxels in a pixel, along i and j alike.
    """

    grey: NDArray[np.uint8]
    affine: NDArray[np.float64]
    step: int


def shrink(
    array: NDArray[Any], affine: NDArray[np.float64], facts: ChannelFacts, *, is_ct: bool
) -> SmallScan:
    """The scan as small grey slices; averages of blocks, so that noise does not become a pattern.

    Args:
        array: (i, j, k), one channel.
        affine: To RAS+ mm.
        facts: The channel's grey values.
        is_ct: Whether to show Hounsfield units in a window for soft tissue.
    """
    view, lps = axis_view(array, affine, "LPS")
    step = -(-max(view.shape[:2]) // _LONGEST_SIDE)
    rows, columns = (max(1, n // step) for n in view.shape[:2])
    block = [min(step, n) for n in view.shape[:2]]
    low, high = _CT_WINDOW_HU if is_ct else (facts.p1, facts.p99)
    if not low < high:
        low, high = facts.low, facts.low + 1.0
    grey = np.zeros((rows, columns, view.shape[2]), dtype=np.uint8, order="F")
    for k in range(view.shape[2]):
        section = view[: rows * block[0], : columns * block[1], k].astype(np.float32)
        section = section.reshape(rows, block[0], columns, block[1]).mean(axis=(1, 3))
        with np.errstate(invalid="ignore"):
            scaled = np.clip((section - low) / (high - low), 0, 1) * 255
        grey[:, :, k] = np.rint(np.nan_to_num(scaled))
    return SmallScan(grey, lps, step)


def thumbnail(scan: SmallScan, layers: list[Volume]) -> Thumbnail:
    """The slice through the centre of all labels, with the labels where they lie in the world.

    Args:
        scan: The small scan.
        layers: Label maps, on any grids; later ones lie on top.
    """
    k = _slice_of(scan, layers)
    rows, columns, _ = scan.grey.shape
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    # Each pixel is the centre of a block of scan voxels.
    centre = (scan.step - 1) / 2
    index = np.stack(
        [i * scan.step + centre, j * scan.step + centre, np.full(i.shape, k), np.ones(i.shape)]
    )
    world = np.tensordot(scan.affine, index, axes=1)
    labels: NDArray[Any] | None = None
    for layer in layers:
        found = _sampled(layer, world)
        labels = found if labels is None else np.where(found > 0, found, labels)
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0) * scan.step
    return Thumbnail(
        scan.grey[:, :, k].T.copy(),
        None if labels is None else labels.T.copy(),
        (float(spacing[1]), float(spacing[0])),
        float(world[2].mean()),
    )


def _sampled(layer: Volume, world: NDArray[np.float64]) -> NDArray[Any]:
    """The label at each place, (rows, columns); 0 outside of the layer."""
    index = np.rint(np.tensordot(np.linalg.inv(layer.affine), world, axes=1)[:3]).astype(np.int64)
    sizes = np.array(layer.shape)[:, None, None]
    inside = ((index >= 0) & (index < sizes)).all(axis=0)
    i, j, k = np.where(inside, index, 0)
    return np.where(inside, layer.array[i, j, k], 0)


def _slice_of(scan: SmallScan, layers: list[Volume]) -> int:
    """The slice nearest to the middle of the labelled slices' area on which there is a label."""
    n_slices = int(scan.grey.shape[2])
    present: list[NDArray[np.float64]] = []
    for layer in layers:
        upright, affine = axis_view(layer.array, layer.affine, "LPS")
        area = np.array([np.count_nonzero(upright[:, :, k]) for k in range(upright.shape[2])])
        filled = np.flatnonzero(area)
        in_scan = np.linalg.solve(scan.affine, affine)
        # Where the middle of each labelled slice lies, in slices of the scan.
        middle = in_scan[2, :2] @ (np.array(upright.shape[:2]) - 1) / 2
        present.append(np.stack([in_scan[2, 2] * filled + middle + in_scan[2, 3], area[filled]]))
    heights, weights = np.concatenate(present, axis=1) if present else np.empty((2, 0))
    if not heights.size:
        return n_slices // 2
    nearest = heights[np.abs(heights - np.average(heights, weights=weights)).argmin()]
    return min(max(int(np.rint(nearest)), 0), n_slices - 1)
