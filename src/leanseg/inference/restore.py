"""From probabilities of a volume to classes in the scan's resolution, some slices at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.decide import decide_slice
from leanseg.preprocessing.fused import axis_taps
from leanseg.preprocessing.resampled import resize_planes


def decide_slices(probabilities: NDArray[np.float32], out: NDArray[Any]) -> None:
    """Classes of some slices whose number is the scan's, but not their rows and columns.

    Args:
        probabilities: (slice, output, i, j).
        out: (i, j, slice) in the scan's resolution, zeros; filled.
    """
    for number, each in enumerate(probabilities):
        decide_slice(each, out[:, :, number])


def restore(
    probabilities: NDArray[np.float32],
    out: NDArray[Any],
    slices_per_block: int,
    threads: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Classes of a volume in the scan's resolution.

    Every class is resized linearly along all three axes, with anti-aliasing where one shrinks
    (`leanseg.volumes.resize`), the third axis first, and then they are compared.

    Args:
        probabilities: (output, i, j, k) in the network's resolution.
        out: (i, j, k) in the scan's resolution, zeros; filled.
        slices_per_block: Slices of `out` that a thread works on together; bounds the memory.
        threads: How many to work in.
        on_progress: Called with (slices done, slices in all).
    """
    n_slices = int(out.shape[2])
    taps = axis_taps(probabilities.shape[3], n_slices)

    def one(start: int) -> int:
        stop = min(start + slices_per_block, n_slices)
        first, last, part = start, stop, None
        if taps is not None:
            part, first, last = taps.part(start, stop)
        planes = np.ascontiguousarray(np.moveaxis(probabilities[..., first:last], 3, 0))
        decide_slices(resize_planes(planes, part), out[:, :, start:stop])
        return stop

    for stop in _in_order(one, range(0, n_slices, slices_per_block), threads):
        if on_progress is not None:
            on_progress(stop, n_slices)


def _in_order(work: Callable[[int], int], starts: range, threads: int) -> Iterator[int]:
    if threads == 1:
        yield from map(work, starts)
        return
    pool = ThreadPoolExecutor(threads, "leanseg-restore")
    try:
        yield from pool.map(work, starts)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
