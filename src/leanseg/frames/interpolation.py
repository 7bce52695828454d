"""One slice at a time: clip, scale and resize while it lies in the processor's cache.

The steps are those of `leanseg.volumes.resize`, with the sums of an interpolation taken tap by
tap in the order of the plan's axes. So the bits of the result depend neither on how the scan is
stored nor on the machine's matrix library, and nothing has to be compiled before the first slice.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leanseg.frames.intensity import IntensityTransform
from leanseg.volumes.resize import axis_weights, cubic_weights

Floats = NDArray[np.float32]
# Along an axis: linear, with or without smoothing where it shrinks; cubic splines; the nearest.
Kind = Literal["smooth", "linear", "cubic", "nearest"]

# Rows that lie a power of two apart in memory fall onto the same few lines of the cache, which
# makes turning an array three times as slow; a few unused columns keep them apart.
_PADDING = 16


@dataclass(frozen=True)
class AxisTaps:
    """Interpolation along one axis, as a sum over a fixed number of taps.

    Attributes:
        indices: For each tap, the input line that each output line takes, (n_out,).
        weights: For each tap, its weights, (n_out, 1); together 1, and of splines alone some are
            negative.
    """

    indices: tuple[NDArray[np.intp], ...]
    weights: tuple[Floats, ...]

    @property
    def n_taps(self) -> int:
        """Input lines per output line."""
        return len(self.indices)

    @property
    def n_out(self) -> int:
        """Output lines."""
        return len(self.indices[0])

    def reach(self, start: int, stop: int) -> tuple[int, int]:
        """Output lines [start, stop) that have any input line of [start, stop) among their taps."""
        touched = np.flatnonzero((self.indices[-1] >= start) & (self.indices[0] < stop))
        return (int(touched[0]), int(touched[-1]) + 1) if touched.size else (0, 0)

    def part(self, start: int, stop: int) -> tuple[AxisTaps, int, int]:
        """Of the output lines [start, stop): their taps, and the input lines that these reach."""
        first, last = int(self.indices[0][start]), int(self.indices[-1][stop - 1]) + 1
        indices = tuple(index[start:stop] - first for index in self.indices)
        weights = tuple(weight[start:stop] for weight in self.weights)
        return AxisTaps(indices, weights), first, last


@lru_cache(maxsize=64)
def axis_taps(n_in: int, n_out: int, kind: Kind = "smooth") -> AxisTaps | None:
    """The weights of `leanseg.volumes.resize` as taps; None where nothing changes.

    Every output line has as many taps as the one with the most; near the ends the rest weigh 0.
    """
    if n_in == n_out:
        return None
    if kind == "nearest":
        # Ties fall as rounding has it, as where nnU-Net asks `scipy.ndimage.map_coordinates`;
        # exact ones (`nearest_indices`) give another slice now and then.
        centres = n_in / n_out * (np.arange(n_out) + 0.5) - 0.5
        indices = np.floor(centres + 0.5).clip(0, n_in - 1).astype(np.intp)
        return AxisTaps((indices,), (np.ones((n_out, 1), np.float32),))
    is_cubic = kind == "cubic"
    matrix = cubic_weights(n_in, n_out) if is_cubic else axis_weights(n_in, n_out, kind == "smooth")
    used = matrix != 0
    n_taps = int((n_in - used[:, ::-1].argmax(axis=1) - used.argmax(axis=1)).max())
    first = np.minimum(used.argmax(axis=1), n_in - n_taps)
    indices = tuple(first + tap for tap in range(n_taps))
    rows = np.arange(n_out)
    return AxisTaps(indices, tuple(matrix[rows, index][:, None].copy() for index in indices))


def resize_lines(lines: Floats, taps: AxisTaps, out: Floats, scratch: Floats) -> None:
    """Interpolate along the first axis, whole lines at a time.

    Args:
        lines: (n_in, m) in C order; other orders are slow.
        taps: From `axis_taps`.
        out: (n_out, m), filled; its lines may lie apart.
        scratch: (n_out, m) in C order, overwritten.
    """
    np.take(lines, taps.indices[0], axis=0, out=scratch, mode="clip")
    np.multiply(scratch, taps.weights[0], out=out)
    for index, weight in zip(taps.indices[1:], taps.weights[1:], strict=True):
        np.take(lines, index, axis=0, out=scratch, mode="clip")
        np.multiply(scratch, weight, out=scratch)
        out += scratch


class Scratch(threading.local):
    """Arrays that a thread uses for one slice after another.

    Allocated anew, each would be fetched from the system page by page every time.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Floats] = {}

    def lines(self, name: str, n: int, m: int) -> Floats:
        """An array (n, m) of any content, in C order."""
        return self._flat(name, n * m)[: n * m].reshape(n, m)

    def padded(self, name: str, n: int, m: int) -> Floats:
        """An array (n, m) of any content, that can be turned quickly."""
        width = m + _PADDING
        return self._flat(name, n * width)[: n * width].reshape(n, width)[:, :m]

    def _flat(self, name: str, size: int) -> Floats:
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.empty(size, dtype=np.float32)
        return kept


_scratch = Scratch()


def prepare_slice(
    section: NDArray[Any],
    transform: IntensityTransform,
    out: Floats,
    kinds: tuple[Kind, Kind] = ("smooth", "smooth"),
    inside: NDArray[np.bool_] | None = None,
    *,
    keeps_range: bool = False,
) -> float | None:
    """Window, scale and resize one slice into the network's input.

    Args:
        section: Voxels (row, column), any real dtype and strides; quickest where neighbours in
            a column are neighbours in memory, as in a scan in Fortran order.
        transform: Of its volume and channel.
        out: (row, column) in C order, filled.
        kinds: How rows and columns are interpolated.
        inside: (row, column), where scaled values are used; elsewhere they are 0. None: everywhere.
        keeps_range: Whether nothing may leave the range of the slice, as splines do.

    Returns:
        The value that the slice has everywhere after windowing and scaling; None where it has
        several. Slices with the same value become the same input, bit for bit.
    """
    n_rows, n_columns = section.shape
    n_rows_out, n_columns_out = out.shape
    columns = section.T
    # Memory is read forwards; turning the slice afterwards turns the rows as well.
    reversed_rows = columns.strides[1] < 0
    if reversed_rows:
        columns = columns[:, ::-1]
    inside = None if inside is None else inside.T[:, :: -1 if reversed_rows else 1]
    values = _scratch.lines("values", n_columns, n_rows)
    transform.apply(columns, values)
    if inside is not None:
        values *= inside
    taps = axis_taps(n_columns, n_columns_out, kinds[1])
    if taps is not None:
        resized = _scratch.padded("columns", n_columns_out, n_rows)
        resize_lines(values, taps, resized, _scratch.lines("tap", n_columns_out, n_rows))
    else:
        resized = values
    rows = resized[:, ::-1].T if reversed_rows else resized.T
    taps = axis_taps(n_rows, n_rows_out, kinds[0])
    if taps is None:
        out[...] = rows
    else:
        turned = _scratch.lines("turned", n_rows, n_columns_out)
        turned[...] = rows
        resize_lines(turned, taps, out, _scratch.lines("tap", n_rows_out, n_columns_out))
    if keeps_range:
        np.clip(out, values.min(), values.max(), out=out)
    value = float(values[0, 0])
    # Most slices show in a single column already that they hold something.
    is_constant = (values[n_columns // 2] == value).all() and (values == value).all()
    return value if is_constant else None


def resize_planes(
    planes: NDArray[np.float32], taps: AxisTaps | None, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Interpolate along the first axis.

    Args:
        planes: (n_in, ...) in C order.
        taps: Interpolation to n_out planes; None leaves them as they are.
        out: (n_out, ...), filled; the axes behind the first lie as in C order.

    Returns:
        (n_out, ...).
    """
    if taps is None:
        if out is None:
            return planes
        out[...] = planes
        return out
    out = np.empty((taps.n_out, *planes.shape[1:]), dtype=np.float32) if out is None else out
    scratch = np.empty((taps.n_out, planes[0].size), dtype=np.float32)
    lines = out.view()
    lines.shape = scratch.shape
    resize_lines(planes.reshape(len(planes), -1), taps, lines, scratch)
    return out
