"""Cutting and adding of tiles, against padded arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.inference.tiles import add_tile, cut_tile

SHAPE = (9, 7, 40)


def padded(array, shape):
    """With zeros of the tile's lengths around it, along the last three axes."""
    return np.pad(array, [(0, 0)] * (array.ndim - 3) + [(n, n) for n in shape])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*(st.integers(1, n) for n in (6, 6, 35))),
    st.tuples(*(st.integers(-6, n - 1) for n in SHAPE)),
    st.integers(0, 1000),
)
def test_against_padded_arrays(shape, start, seed):
    # What begins before the tile's end would not touch the scan.
    start = tuple(max(first, 1 - n) for first, n in zip(start, shape, strict=True))
    rng = np.random.default_rng(seed)
    whole = rng.random((2, *SHAPE), dtype=np.float32)
    planes = whole.transpose(3, 0, 1, 2)
    place = tuple(slice(s + n, s + 2 * n) for s, n in zip(start, shape, strict=True))

    tile = np.full((2, *shape), np.nan, dtype=np.float32)
    cut_tile(planes.copy(), start, SHAPE[2], tile)
    np.testing.assert_array_equal(tile, padded(whole, shape)[(slice(None), *place)])

    found = rng.random((3, *shape), dtype=np.float32)
    weight = rng.random(shape, dtype=np.float32)
    sums, weights = rng.random((3, *SHAPE), dtype=np.float32), rng.random(SHAPE, dtype=np.float32)
    wanted, own = padded(sums, shape), padded(weights, shape)
    wanted[(slice(None), *place)] += weight * found
    own[place] += weight
    inner = tuple(slice(n, n + length) for n, length in zip(shape, SHAPE, strict=True))
    ring = np.ascontiguousarray(sums.transpose(3, 0, 1, 2))
    ring_weights = np.ascontiguousarray(weights.transpose(2, 0, 1))
    add_tile(found, weight.transpose(2, 0, 1).copy(), start, SHAPE[2], ring, ring_weights)
    np.testing.assert_array_equal(ring.transpose(1, 2, 3, 0), wanted[(slice(None), *inner)])
    np.testing.assert_array_equal(ring_weights.transpose(1, 2, 0), own[inner])


@pytest.mark.parametrize("first", [0, 6, 13])
def test_a_window_is_a_ring(first):
    """Ten planes are held of forty."""
    rng = np.random.default_rng(first)
    whole = rng.random((1, *SHAPE), dtype=np.float32)
    ring = np.empty((10, 1, *SHAPE[:2]), dtype=np.float32)
    for k in range(first, first + 10):
        ring[k % 10] = whole[..., k]
    tile = np.empty((1, 3, 3, 10), dtype=np.float32)
    cut_tile(ring, (2, 1, first), SHAPE[2], tile)
    np.testing.assert_array_equal(tile, whole[:, 2:5, 1:4, first : first + 10])
    weights = np.zeros((10, *SHAPE[:2]), dtype=np.float32)
    add_tile(tile, np.ones((10, 3, 3), np.float32), (2, 1, first), SHAPE[2], ring, weights)
    for k in range(first, first + 10):
        np.testing.assert_array_equal(ring[k % 10, 0, 2:5, 1:4], 2 * whole[0, 2:5, 1:4, k])
    assert weights.sum() == 90
