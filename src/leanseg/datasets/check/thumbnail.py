"""Small pictures of a case: an axial slice through its labels, upright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.check.facts import ChannelFacts, Thumbnail
from leanseg.volumes import Volume, axis_view, reorient

_LONGEST_SIDE = 224
# Soft tissue, as abdominal scans are usually looked at.
_CT_WINDOW_HU = (-160.0, 240.0)


def shrink(
    array: NDArray[Any], affine: NDArray[np.float64], facts: ChannelFacts, *, is_ct: bool
) -> Volume:
    """All axial slices of a scan as small grey pictures, in a few percent of its memory.

    Averages of blocks, so that noise does not become a pattern.

    Args:
        array: (i, j, k), one channel.
        affine: To RAS+ mm.
        facts: The channel's grey values.
        is_ct: Whether to show Hounsfield units in a window for soft tissue.

    Returns:
        (i, j, k) uint8, LPS, with the scan's slices.
    """
    view, lps = axis_view(array, affine, "LPS")
    step = -(-max(view.shape[:2]) // _LONGEST_SIDE)
    block = [min(step, n) for n in view.shape[:2]]
    rows, columns = (n // b for n, b in zip(view.shape[:2], block, strict=True))
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
    # A pixel lies where the centre of its block does.
    to_scan = np.diag([*block, 1.0, 1.0])
    to_scan[:2, 3] = [(b - 1) / 2 for b in block]
    return Volume(grey, lps @ to_scan)


def thumbnail(small: Volume, layers: Sequence[Volume]) -> Thumbnail:
    """The slice with most labelled voxels, with the labels where they lie in the world.

    Args:
        small: From `shrink`.
        layers: Label maps, on any grids; later ones lie on top.
    """
    k = _slice_of(small, layers)
    i, j = np.indices(small.shape[:2])
    world = np.tensordot(small.affine, [i, j, np.full_like(i, k), np.ones_like(i)], axes=1)
    labels: NDArray[Any] | None = None
    for layer in layers:
        found = _sampled(layer, world)
        labels = found if labels is None else np.where(found > 0, found, labels)
    width, height, _ = small.spacing_mm
    return Thumbnail(
        small.array[:, :, k].T.copy(),
        None if labels is None else labels.T.copy(),
        (height, width),
        float(world[2].mean()),
    )


def _sampled(layer: Volume, world: NDArray[np.float64]) -> NDArray[Any]:
    """The label at each place, (rows, columns); 0 outside of the layer."""
    index = np.rint(np.tensordot(np.linalg.inv(layer.affine), world, axes=1)[:3]).astype(np.int64)
    inside = ((index >= 0) & (index < np.reshape(layer.shape, (3, 1, 1)))).all(axis=0)
    i, j, k = np.where(inside, index, 0)
    return np.where(inside, layer.array[i, j, k], 0)


def _slice_of(small: Volume, layers: Sequence[Volume]) -> int:
    """The slice with most labelled voxels; the middle one where there are none."""
    n_slices, most, best = small.shape[2], 0, small.shape[2] // 2
    for layer in (reorient(layer, "LPS") for layer in layers):
        areas = [int(np.count_nonzero(layer.array[:, :, k])) for k in range(layer.shape[2])]
        if max(areas) > most:
            most, k = max(areas), areas.index(max(areas))
            middle = layer.affine @ [*((np.array(layer.shape[:2]) - 1) / 2), k, 1]
            best = int(np.rint(np.linalg.solve(small.affine, middle)[2]))
    return min(max(best, 0), n_slices - 1)
