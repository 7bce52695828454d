"""Where patches lie, against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.inference.layer import Layer, patch_starts

monai_utils = pytest.importorskip("monai.data.utils")
monai_inferers = pytest.importorskip("monai.inferers.utils")


@settings(deadline=None)
@given(
    length=st.integers(1, 400),
    tile=st.integers(1, 128),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 0.99]),
)
def test_tiles_lie_where_monai_lays_them(length, tile, overlap):
    size = max(length, tile)
    interval = monai_inferers._get_scan_interval((size,), (tile,), 1, (overlap,))
    expected = [
        part[0].start for part in monai_utils.dense_patch_slices((size,), (tile,), interval)
    ]
    found = patch_starts(length, tile, overlap)
    # There the scan is padded; here a tile that is larger hangs over on both sides.
    assert [start + (size - length) // 2 for start in found] == expected
    covered = np.zeros(length, bool)
    for start in found:
        covered[max(start, 0) : start + tile] = True
    assert covered.all()


def test_a_patch_that_is_the_frame() -> None:
    assert Layer.over((8, 9, 10), (8, 9, 10), 0.5).is_single
    assert not Layer.over((8, 9, 9), (8, 9, 10), 0.5).is_single
    assert Layer.over((20, 9, 10), (8, 9, 10), 0.5).n_patches == 4
