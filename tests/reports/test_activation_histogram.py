"""Growing histograms, counted by hand."""

from __future__ import annotations

import numpy as np

from leanseg.reports.activation_histogram import GrowingHistogram, Histogram


def test_bins_merge_in_pairs() -> None:
    growing = GrowingHistogram()
    width = growing.width
    middle = len(growing.counts) // 2
    growing.counts[middle - 3 : middle + 4] = [1, 2, 4, 8, 16, 32, 64]
    growing.make_room(0.99 * width * middle)
    assert growing.width == width
    growing.make_room(width * middle)
    assert growing.width == 2 * width
    assert growing.counts[middle - 2 : middle + 2].tolist() == [1, 6, 24, 96]
    assert growing.counts.sum() == 127


def test_rebinning_keeps_every_value() -> None:
    fine = Histogram(-1.0, 0.25, np.arange(12))
    wide = fine.rebinned(-1.0, 2.0, 3)
    assert (wide.low, wide.width) == (-1.0, 1.0)
    assert wide.counts.tolist() == [6, 22, 38]
    # The outer ones take what lies outside.
    assert fine.rebinned(0.0, 1.0, 2).counts.tolist() == [0 + 1 + 2 + 3 + 4 + 5, 66 - 15]
    assert fine.quantile(0.0) == -1.0
    assert fine.quantile(1.0) == 1.75
