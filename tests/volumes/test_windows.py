from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from leanseg.volumes.windows import agree, window_around

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
MARGIN = st.tuples(st.integers(0, 50), st.integers(0, 50))


@given(MASKS, MARGIN, MARGIN, st.integers(1, 20), st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_holds_all_with_its_margins_and_has_whole_multiples(
    mask, along_i, along_j, multiple, least
):
    window = window_around(mask, [along_i, along_j], multiple, least)
    if not mask.any():
        assert window is None
        return
    for axis, (before, behind) in enumerate((along_i, along_j)):
        own, n = window[axis], mask.shape[axis]
        filled = np.nonzero(mask)[axis]
        length = own.stop - own.start
        assert 0 <= own.start < own.stop <= n
        assert own.start <= max(0, filled.min() - before)
        assert own.stop >= min(n, filled.max() + 1 + behind)
        assert length == n or length % multiple == 0
        assert length >= min(n, least[axis])


def test_by_hand():
    mask = np.zeros((20, 30), bool)
    mask[8:11, 4:6] = True
    assert window_around(mask, [(0, 0), (0, 0)]) == (slice(8, 11), slice(4, 6))
    assert window_around(mask, [(2, 1), (9, 0)]) == (slice(6, 12), slice(0, 6))
    # 3 and 2 pixels to 8: five more, two before; six more, three before.
    assert window_around(mask, [(0, 0), (0, 0)], 8) == (slice(6, 14), slice(1, 9))
    # Not past the border, and not longer than the slice.
    assert window_around(mask, [(0, 0), (0, 0)], 16) == (slice(2, 18), slice(0, 16))
    assert window_around(mask, [(0, 0), (0, 0)], 32) == (slice(0, 20), slice(0, 30))


@pytest.mark.parametrize(("n_common", "expected"), [(0, False), (94, False), (95, True)])
def test_masks_agree_from_a_dice_of_095_on(n_common, expected):
    first, second = np.zeros(300, bool), np.zeros(300, bool)
    first[:100], second[100 - n_common : 200 - n_common] = True, True
    assert agree(first, second) is expected


def test_nothing_agrees_with_nothing():
    assert agree(np.zeros(3, bool), np.zeros(3, bool))
