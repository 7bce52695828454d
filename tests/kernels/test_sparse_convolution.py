"""Sampling without PyTorch: what scipy's interpolation and a plain sum give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from leanseg.kernels.sparse_convolution import sample_and_convolve, spanning_grid


def naive(images, offsets, weight, grid, groups):
    samples = []
    for image in images:
        shape = np.array(image.shape[1:])
        mesh = np.stack(np.meshgrid(*grid, indexing="ij"))
        maps = []
        for channel in image:
            for pair in offsets[0]:
                value = 0.0
                for sign, offset in zip((1, -1), pair, strict=False):
                    places = mesh + offset[::-1, None, None, None]
                    voxels = (places + 1) / 2 * (shape - 1)[:, None, None, None]
                    padded = np.pad(channel, 1).astype(np.float64)
                    value = value + sign * map_coordinates(
                        padded, voxels + 1, order=1, mode="constant"
                    )
                maps.append(value)
        samples.append(maps)
    maps = np.array(samples)
    batch, spatial = len(images), maps.shape[2:]
    maps = maps.reshape(batch, groups, -1, *spatial)
    grouped = weight.reshape(groups, -1, weight.shape[1])
    return np.einsum("gom,bgmzyx->bgozyx", grouped, maps).reshape(batch, -1, *spatial)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("pair", [1, 2])
@pytest.mark.parametrize(("channels", "groups", "outputs"), [(1, 1, 3), (2, 2, 8), (3, 4, 4)])
def test_samples_are_scipys(rng, channels, groups, outputs, pair, threads):
    images = rng.normal(size=(2, channels, 7, 9, 8)).astype(np.float32)
    offsets = rng.normal(0, 0.4, (1, 8, pair, 3)).astype(np.float32)
    weight = rng.normal(size=(outputs, channels * 8 // groups)).astype(np.float32)
    grid = spanning_grid((4, 3, 6))
    found = sample_and_convolve(images, offsets, weight, grid, groups=groups, threads=threads)
    expected = naive(images, offsets, weight, grid, groups)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_arrays_that_cannot_be_written_to(rng):
    images = rng.normal(size=(1, 1, 5, 5, 5)).astype(np.float32)
    offsets = rng.normal(0, 0.1, (1, 3, 1, 3)).astype(np.float32)
    weight = rng.normal(size=(4, 3)).astype(np.float32)
    # As the arrays of a model file, which cannot be written to.
    for array in (images, offsets, weight):
        array.setflags(write=False)
    grid = spanning_grid((2, 2, 2))
    found = sample_and_convolve(images, offsets, weight, grid)
    np.testing.assert_allclose(found, naive(images, offsets, weight, grid, 1), atol=2e-5)


def test_a_grid_spans_the_image_as_torchs_does():
    obelisk_sampling = pytest.importorskip("leanseg.networks.obelisk_sampling")
    for size in ((1, 2, 3), (36, 18, 47), (144, 115, 160)):
        expected = obelisk_sampling.regular_grid(size)
        for axis, other in zip(spanning_grid(size), expected, strict=True):
            np.testing.assert_array_equal(axis, other.numpy())
