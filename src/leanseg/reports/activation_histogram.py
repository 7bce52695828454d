"""Histograms of values whose range is not known before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_N_BINS = 1 << 14
_FIRST_WIDTH = 2.0**-16


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of one width; bin n holds values of [low + n width, low + (n + 1) width)."""

    low: float
    width: float
    counts: NDArray[np.int64]

    def rebinned(self, low: float, high: float, n_bins: int) -> Histogram:
        """The same counts in other bins, each old bin going where its middle lies.

        What lies outside [low, high] goes into the first and last bin.
        """
        width = (high - low) / n_bins
        middles = self.low + (np.arange(len(self.counts)) + 0.5) * self.width
        place = np.clip(np.floor((middles - low) / width), 0, n_bins - 1).astype(np.int64)
        counts = np.bincount(place, weights=self.counts, minlength=n_bins).astype(np.int64)
        return Histogram(low, width, counts)

    def quantile(self, share: float) -> float:
        """The value below which this share of all lies, to the width of a bin."""
        below = np.cumsum(self.counts)
        return self.low + int(np.searchsorted(below, share * below[-1])) * self.width


class GrowingHistogram:
    """Bins for a stream of unknown range: when a value lies outside, they are merged in pairs.

    The bins' width is a power of two and zero is a bin's edge, so that the result does not depend
    on the order of the values.
    """

    def __init__(self) -> None:
        self.width = _FIRST_WIDTH
        self.counts = np.zeros(_N_BINS, dtype=np.int64)

    def make_room(self, farthest: float) -> None:
        """Have bins for values up to this far from zero."""
        while self.width * (_N_BINS // 2) <= farthest:
            wider = np.zeros_like(self.counts)
            wider[_N_BINS // 4 : -_N_BINS // 4] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts, self.width = wider, 2 * self.width

    def result(self) -> Histogram:
        """The histogram without the empty bins at its ends."""
        filled = np.flatnonzero(self.counts)
        first, last = int(filled[0]), int(filled[-1])
        low = (first - _N_BINS // 2) * self.width
        return Histogram(low, self.width, self.counts[first : last + 1].copy())
