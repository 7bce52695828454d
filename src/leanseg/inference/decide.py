"""From the network's probabilities to classes in the scan's own resolution, slice by slice.

The definition: every class's probabilities are resized linearly (`leanseg.volumes.resize`), and
then compared: above the threshold, in 32 bits, for one output, else the first of the highest.
Outputs of regions that contain each other are compared with the threshold each, and the innermost
region that is found has the pixel, whether or not those around it are found there too. Most of a
slice need not be resized for that. A resized value is a mean of the few network pixels under it, so

- with one output, or one of several regions, a pixel whose taps all lie at or below the threshold
  is out;
- with K outputs that sum to at least s, the highest resized value is at least s / K, so a class
  whose taps all lie below s / K is not the highest;
- of logits, a class that lies below the background at all taps is not the highest.

In floating point each of the products and sums that make a resized value is off by at most one
part in 2^24 of the greatest term, or below 2^-126 by at most 2^-149; the bounds are taken a
little more strictly than these errors add up to (`_slack`, `_TINY`). So a class is left out
of the comparison only where it would have lost, and the result is that of resizing everything, to
the last voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.frames.interpolation import AxisTaps, Kind, Scratch, axis_taps, resize_lines

Floats = NDArray[np.float32]
# Output rows [start, stop) and columns [start, stop).
_Box = tuple[int, int, int, int]

_scratch = Scratch()
# Where numbers are so small that rounding errors are not in proportion to them any more.
_TINY = np.finfo(np.float32).tiny


def decide_slice(
    probabilities: Floats,
    out: NDArray[Any],
    regions: Sequence[int] | None = None,
    threshold: float = 0.5,
    *,
    kinds: tuple[Kind, Kind] = ("smooth", "smooth"),
    is_logits: bool = False,
) -> None:
    """Classes of one slice.

    Args:
        probabilities: (output, row, column) in network resolution, finite and not negative; or
            logits.
        out: (row, column) in the scan's resolution, zeros: uint8 or uint16 of any strides,
            quickest where neighbours in a column are neighbours in memory. Filled with classes.
        regions: Of outputs that are regions the classes, n + 1 for output n, in the order in
            which later ones replace earlier ones. None where classes exclude one another.
        threshold: Of one output and of regions: they are where probabilities are above it.
        kinds: How rows and columns are interpolated; not by splines.
        is_logits: Whether these are logits, the threshold too.
    """
    rows, columns = _taps(probabilities, out, kinds)
    slack = _slack(rows, columns)
    # Of probabilities the errors are in proportion to what they are compared with.
    margin = _TINY + (slack * np.abs(probabilities).max() if is_logits else np.float32(0))
    if len(probabilities) == 1 or regions is not None:
        least = np.float32(threshold)
        for number in regions or (1,):
            region = probabilities[number - 1]
            near = least - margin if is_logits else least * (1 - slack) - margin
            box = _reached(region > near, rows, columns)
            if box is not None:
                inside = _resized(region, rows, columns, box) > least
                if number == len(probabilities) == 1:
                    # Many times faster than a masked copy.
                    _view(out, box)[...] = inside
                else:
                    np.copyto(_view(out, box), number, where=inside)
        return
    # The highest is at least the mean: nowhere can a class below that be the first of the highest.
    bound = (
        probabilities[0] - 2 * margin
        if is_logits
        else probabilities.sum(axis=0).min() / np.float32(len(probabilities)) * (1 - slack)
    )
    candidates: list[tuple[int, _Box]] = []
    for number in range(1, len(probabilities)):
        box = _reached(~(probabilities[number] < bound), rows, columns)
        if box is not None:
            candidates.append((number, box))
    if candidates:
        _compare(probabilities, candidates, rows, columns, out)


def _taps(
    probabilities: Floats, out: NDArray[Any], kinds: tuple[Kind, Kind]
) -> tuple[AxisTaps | None, AxisTaps | None]:
    (_, *shape), own = probabilities.shape, out.shape
    return axis_taps(shape[0], own[0], kinds[0]), axis_taps(shape[1], own[1], kinds[1])


def resize_probabilities(
    probabilities: Floats,
    out: NDArray[Any],
    kinds: tuple[Kind, Kind] = ("smooth", "smooth"),
    scale: Callable[[Floats], Floats] | None = None,
) -> None:
    """The probabilities of one slice in the scan's resolution, every class resized linearly.

    Args:
        probabilities: (output, row, column) in network resolution.
        out: (row, column, output) in the scan's resolution, of any floating type; filled.
        kinds: How rows and columns are interpolated.
        scale: What is then done to all outputs of a voxel, (row, column, output), together.
    """
    rows, columns = _taps(probabilities, out, kinds)
    box = (0, out.shape[0], 0, out.shape[1])
    if scale is not None:
        # Copies: a resized slice is valid until the next one is.
        resized = [_resized(each, rows, columns, box).T.copy() for each in probabilities]
        out[...] = scale(np.stack(resized, axis=2))
        return
    for number, each in enumerate(probabilities):
        out[:, :, number] = _resized(each, rows, columns, box).T


def _compare(
    probabilities: Floats,
    candidates: list[tuple[int, _Box]],
    rows: AxisTaps | None,
    columns: AxisTaps | None,
    out: NDArray[Any],
) -> None:
    """The first of the highest among the background and each class within its box."""
    top, bottom, left, right = zip(*(box for _, box in candidates), strict=True)
    union = (min(top), max(bottom), min(left), max(right))
    best = _scratch.lines("best", union[3] - union[2], union[1] - union[0])
    best[...] = _resized(probabilities[0], rows, columns, union)
    classes: NDArray[Any] = np.zeros(best.shape, dtype=out.dtype)
    for number, box in candidates:
        resized = _resized(probabilities[number], rows, columns, box)
        place = (
            slice(box[2] - union[2], box[3] - union[2]),
            slice(box[0] - union[0], box[1] - union[0]),
        )
        higher = np.multiply(resized > best[place], number, dtype=out.dtype)
        # Numbers ascend, so the greater one is the later: many times faster than a masked copy.
        np.maximum(classes[place], higher, out=classes[place])
        np.maximum(best[place], resized, out=best[place])
    _view(out, union)[...] = classes


def _slack(rows: AxisTaps | None, columns: AxisTaps | None) -> np.float32:
    """More than the rounding errors of two resized values, and of their bound, can add up to."""
    n_taps = sum(1 if taps is None else taps.n_taps for taps in (rows, columns))
    return np.float32(8 * (n_taps + 4) * 2.0**-24)


def _reached(
    mask: NDArray[np.bool_], rows: AxisTaps | None, columns: AxisTaps | None
) -> _Box | None:
    """Smallest box of output pixels that holds all with a tap in a mask; None if there is none."""
    ends: list[int] = []
    for axis, taps in ((1, rows), (0, columns)):
        used = np.flatnonzero(mask.any(axis=axis))
        if not used.size:
            return None
        start, stop = int(used[0]), int(used[-1]) + 1
        ends += (start, stop) if taps is None else taps.reach(start, stop)
    return (
        None if ends[0] == ends[1] or ends[2] == ends[3] else (ends[0], ends[1], ends[2], ends[3])
    )


def _view(out: NDArray[Any], box: _Box) -> NDArray[Any]:
    """A box of the result as (column, row)."""
    return out[box[0] : box[1], box[2] : box[3]].T


def _resized(values: Floats, rows: AxisTaps | None, columns: AxisTaps | None, box: _Box) -> Floats:
    """A box of the resized values, (column, row); valid until the next call in this thread."""
    top, bottom, left, right = box
    n_rows, n_columns = bottom - top, right - left
    columns, first, last = (None, left, right) if columns is None else columns.part(left, right)
    between = values[:, first:last]
    if rows is None:
        between = between[top:bottom]
    else:
        taps, start, stop = rows.part(top, bottom)
        source, between = between[start:stop], _scratch.padded("rows", n_rows, last - first)
        resize_lines(source, taps, between, _scratch.lines("tap", n_rows, last - first))
    if columns is None:
        return between.T
    turned = _scratch.lines("turned", last - first, n_rows)
    turned[...] = between.T
    out = _scratch.lines("columns", n_columns, n_rows)
    resize_lines(turned, columns, out, _scratch.lines("tap", n_columns, n_rows))
    return out
