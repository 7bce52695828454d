"""Weights are MONAI's, and the rolling window is the whole array's blend."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.frames.interpolation import axis_taps, resize_planes
from leanseg.inference.blend import GaussianBlend, importance
from leanseg.inference.layer import Layer, ready_slices
from leanseg.volumes import axis_weights

monai_utils = pytest.importorskip("monai.data.utils")


@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 32, 17), (1, 1, 1), (128, 2, 3)])
def test_a_voxels_weight_is_monais(shape):
    expected = monai_utils.compute_importance_map(shape, mode="gaussian", sigma_scale=0.125)
    np.testing.assert_allclose(importance(shape), expected.numpy(), rtol=2e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(("n", "own"), [(37, 37), (37, 9), (37, 100), (7, 21), (1, 1), (1, 4)])
def test_the_window_gives_what_the_whole_array_gives(rng, n, own, overlap):
    tile, rows, columns = (6, 5, 12), 11, 9
    along, taps = axis_weights(n, own), axis_taps(n, own)
    layer = Layer.over((rows, columns, n), tile, overlap)
    layers = layer.starts[2]
    depth = layer.depth_needed(taps)
    window = GaussianBlend((rows, columns, n), tile, 2, depth)
    weight = importance(tile).astype(np.float64)
    sums, weights = np.zeros((2, rows, columns, n)), np.zeros((rows, columns, n))
    tiles = []
    for k in layers:
        for i in layer.starts[0]:
            for j in layer.starts[1]:
                values = rng.random((2, *tile), dtype=np.float32)
                tiles.append(((i, j, k), values))
                for a, b, c in np.ndindex(*tile):
                    place = (i + a, j + b, k + c)
                    if all(0 <= p < m for p, m in zip(place, (rows, columns, n), strict=True)):
                        sums[(slice(None), *place)] += weight[a, b, c] * values[:, a, b, c]
                        weights[place] += weight[a, b, c]
    expected = np.einsum("cijk,nk->ncij", sums / weights, along)
    found, decided = [], 0
    for number, k in enumerate(layers):
        for start, values in tiles:
            if start[2] == k:
                window.add(values, start)
        stop = layer.finished_before(number)
        window.finish(stop)
        while decided < ready_slices(taps, stop):
            part, first, last = None, decided, decided + 1
            if taps is not None:
                part, first, last = taps.part(decided, decided + 1)
            found.append(resize_planes(window.planes(first, last), part))
            decided += 1
    assert decided == own
    np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-6)
    # As few planes as can be: a tile's and those that a slice of the scan still waits for.
    assert depth <= min(n, tile[2]) + 2 * -(-n // own) + 2
