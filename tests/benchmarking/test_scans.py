"""The phantom of any shape."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.benchmarking.scans import parse_shape, phantom_scan
from leanseg.errors import RecipeError


@pytest.mark.parametrize("text", ["512,512,150", "512x512x150", "512, 512, 150"])
def test_shapes(text):
    assert parse_shape(text) == (512, 512, 150)


@pytest.mark.parametrize("text", ["", "5", "1,2", "1,2,3,4", "a,b,c", "1.5,2,3", "0,4,4", "-1,2,3"])
def test_what_is_no_shape(text):
    with pytest.raises(RecipeError, match="shape"):
        parse_shape(text)


def test_a_shape_that_no_machine_holds():
    with pytest.raises(RecipeError, match="4096"):
        parse_shape("512,512,1000000")


@pytest.mark.parametrize(
    "shape", [(64, 64, 20), (40, 70, 3), (80, 30, 25), (66, 64, 45), (1, 1, 1)]
)
def test_any_shape_is_a_ct(shape):
    scan = phantom_scan(shape)
    assert scan.shape == shape and scan.array.dtype == np.int16
    assert scan.array.min() >= -1024 and scan.array.max() <= 3071


def test_padding_is_air_and_slices_are_repeated():
    scan = phantom_scan((64, 64, 130)).array
    # A phantom has 120 slices at most.
    assert np.array_equal(scan[:, :, :10], scan[:, :, 120:])
    wide = phantom_scan((64, 520, 20)).array
    assert (wide[:, :4] == -1024).all() and (wide[:, -4:] == -1024).all()
    assert wide[:, 4:-4].std() > 100


def test_the_same_seed_gives_the_same_scan():
    first, second, other = (phantom_scan((64, 64, 20), seed=seed).array for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_channels_and_spacing():
    scan = phantom_scan((64, 64, 20), channels=3)
    assert scan.n_channels == 3
    assert np.array_equal(scan.array[..., 0], scan.array[..., 2])
    assert scan.spacing_mm[2] == 2.5
    assert np.array_equal(phantom_scan((64, 64, 20)).array, scan.array[..., 1])
