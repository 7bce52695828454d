"""Small pictures of a case: an axial slice through its labels, upright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.check.facts import LabelFacts, Thumbnail
from leanseg.volumes import Volume, axis_view, resample

_LONGEST_SIDE = 224


def shrink(array: NDArray[Any], affine: NDArray[np.float64], window: tuple[float, float]) -> Volume:
    """All axial slices of a scan as small grey pictures, in a few percent of its memory.

    Averages of blocks, so that noise does not become a pattern.

    Args:
        array: (i, j, k), one channel.
        affine: To RAS+ mm.
        window: Grey values that become black and white.

    Returns:
        (i, j, k) uint8, LPS, with the scan's slices.
    """
    view, lps = axis_view(array, affine, "LPS")
    step = -(-max(view.shape[:2]) // _LONGEST_SIDE)
    step = min(step, *view.shape[:2])
    rows, columns = (n // step for n in view.shape[:2])
    low, high = window if window[0] < window[1] else (window[0], window[0] + 1)
    grey = np.zeros((rows, columns, view.shape[2]), dtype=np.uint8, order="F")
    for k in range(view.shape[2]):
        section = view[: rows * step, : columns * step, k].astype(np.float32)
        section = section.reshape(rows, step, columns, step).mean(axis=(1, 3))
        with np.errstate(invalid="ignore"):
            scaled = np.clip((section - low) / (high - low), 0, 1) * 255
        grey[:, :, k] = np.rint(np.nan_to_num(scaled))
    # A pixel lies where the centre of its block does.
    to_scan = np.diag([step, step, 1.0, 1.0])
    to_scan[:2, 3] = (step - 1) / 2
    return Volume(grey, lps @ to_scan)


def thumbnail(small: Volume, layers: Sequence[Volume], labels: Sequence[LabelFacts]) -> Thumbnail:
    """The slice through the middle of the largest label, with the labels where they lie.

    Args:
        small: From `shrink`.
        layers: Label maps, on any grids; later ones lie on top.
        labels: What was measured of them; without any, the middle slice is taken.
    """
    k, affine = small.shape[2] // 2, small.affine.copy()
    if labels:
        largest = max(labels, key=lambda label: label.volume_ml)
        k = int(np.rint(np.linalg.solve(affine, [*largest.centre_mm, 1.0])[2]))
        k = min(max(k, 0), small.shape[2] - 1)
    affine[:, 3] = affine @ (0, 0, k, 1)
    image = Volume(small.array[:, :, k : k + 1].copy(), affine)
    drawn: NDArray[Any] | None = None
    for layer in layers:
        found = resample(layer, image, "nearest").array
        drawn = found if drawn is None else np.where(found > 0, found, drawn)
    return Thumbnail(image, drawn)
