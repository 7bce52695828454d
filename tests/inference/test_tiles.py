"""Tiles: positions and weights are MONAI's, and the rolling window is the whole array's blend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.inference.tiles import (
    RollingBlend,
    depth_needed,
    importance,
    plane_ranges,
    tile_starts,
)
from leanseg.volumes import axis_weights

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
    found = tile_starts(length, tile, overlap)
    # There the scan is padded; here a tile that is larger hangs over on both sides.
    assert [start + (size - length) // 2 for start in found] == expected
    covered = np.zeros(length, bool)
    for start in found:
        covered[max(start, 0) : start + tile] = True
    assert covered.all()


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 32, 17), (1, 1, 1), (128, 2, 3)])
def test_a_voxels_weight_is_monais(shape):
    expected = monai_utils.compute_importance_map(shape, mode="gaussian", sigma_scale=0.125)
    np.testing.assert_allclose(importance(shape), expected.numpy(), rtol=2e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(("n", "own"), [(37, 37), (37, 9), (37, 100), (7, 21), (1, 1), (1, 4)])
def test_the_window_gives_what_the_whole_array_gives(rng, n, own, overlap):
    tile, rows, columns = (6, 5, 12), 11, 9
    along = axis_weights(n, own)
    layers = tile_starts(n, tile[2], overlap)
    depth = depth_needed(layers, tile[2], n, along)
    window = RollingBlend((rows, columns, n), tile, 2, depth)
    weight = importance(tile).astype(np.float64)
    sums, weights = np.zeros((2, rows, columns, n)), np.zeros((rows, columns, n))
    tiles = []
    for k in layers:
        for i in tile_starts(rows, tile[0], overlap):
            for j in tile_starts(columns, tile[1], overlap):
                values = rng.random((2, *tile), dtype=np.float32)
                tiles.append(((i, j, k), values))
                for a, b, c in np.ndindex(*tile):
                    place = (i + a, j + b, k + c)
                    if all(0 <= p < m for p, m in zip(place, (rows, columns, n), strict=True)):
                        sums[(slice(None), *place)] += weight[a, b, c] * values[:, a, b, c]
                        weights[place] += weight[a, b, c]
    expected = np.einsum("cijk,nk->ncij", sums / weights, along)
    first, last = plane_ranges(along)
    found, decided = [], 0
    for number, k in enumerate(layers):
        for start, values in tiles:
            if start[2] == k:
                window.add(values, start)
        stop = layers[number + 1] if number + 1 < len(layers) else n
        window.finish(stop)
        while decided < own and last[decided] < stop:
            taps = slice(first[decided], last[decided] + 1)
            found.append(window.blended(int(first[decided]), along[decided : decided + 1, taps]))
            decided += 1
    assert decided == own
    np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-6)
    # As few planes as can be: a tile's and those that a slice of the scan still waits for.
    assert depth <= min(n, tile[2]) + 2 * -(-n // own) + 2
