"""The phantom of any shape."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.benchmarking.phantom import phantom_scan
from leanseg.errors import RecipeError


@pytest.mark.parametrize("shape", [(0, 4, 4), (-1, 2, 3), (512, 512, 1_000_000)])
def test_what_is_no_shape(shape):
    with pytest.raises(RecipeError, match="lengths from 1 to"):
        phantom_scan(shape)


@pytest.mark.parametrize("shape", [(40, 70, 3), (66, 64, 45), (1, 1, 1), (64, 520, 20)])
def test_any_shape_is_a_ct(shape):
    scan = phantom_scan(shape)
    assert scan.shape == shape and scan.array.dtype == np.int16
    assert scan.array.min() >= -1024 and scan.array.max() <= 3071


def test_slices_are_repeated():
    scan = phantom_scan((64, 64, 130)).array
    # A phantom has 120 slices at most.
    assert np.array_equal(scan[:, :, :10], scan[:, :, 120:])


def test_every_channel_is_the_same_scan():
    scan = phantom_scan((64, 64, 20), channels=3)
    assert scan.n_channels == 3 and scan.spacing_mm[2] == 2.5
    assert np.array_equal(scan.array[..., 0], scan.array[..., 2])
    assert np.array_equal(phantom_scan((64, 64, 20)).array, scan.array[..., 1])
