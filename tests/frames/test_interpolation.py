"""One slice at a time against the steps written out, for any dtype, strides and size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from leanseg.frames.intensity import IntensityTransform
from leanseg.frames.interpolation import axis_taps, prepare_slice
from leanseg.volumes import axis_weights, resize_array

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "int64", "float32", "float64", ">i2")
WINDOW = IntensityTransform(low=-30.5, high=70.0, offset=-30.5, scale=1 / 100.5)


def section(rng, dtype: str, shape: tuple[int, int], layout: str) -> np.ndarray:
    """Voxels of a dtype, in every way that a slice of a reoriented scan lies in memory."""
    low = 0 if np.dtype(dtype).kind == "u" else -100
    array = rng.integers(low, 100, (*shape, 3)).astype(dtype)
    array = np.asfortranarray(array) if "F" in layout else np.ascontiguousarray(array)
    one = array[:, :, 1]
    if "r" in layout:
        one = one[::-1]
    return one[:, ::-1] if "c" in layout else one


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["C", "F", "Fr", "Fc", "Frc", "Cr", "Crc"]),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    wanted=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_against_the_steps_written_out(seed, dtype, layout, shape, wanted) -> None:
    voxels = section(np.random.default_rng(seed), dtype, shape, layout)
    out = np.full(wanted, np.nan, dtype=np.float32)
    value = prepare_slice(voxels, WINDOW, out)
    full = (voxels.astype(np.float64).clip(-30.5, 70) + 30.5) / 100.5
    expected = axis_weights(shape[0], wanted[0]).astype(np.float64) @ full
    expected = expected @ axis_weights(shape[1], wanted[1]).T.astype(np.float64)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    assert (value is not None) == (np.ptp(full) == 0)
    whole = WINDOW.apply(voxels[None])
    np.testing.assert_allclose(out, resize_array(whole, wanted, axes=(1, 2))[0], atol=2e-6)
    # The same voxels stored otherwise give the same bits.
    again = np.empty_like(out)
    prepare_slice(np.ascontiguousarray(voxels), WINDOW, again)
    np.testing.assert_array_equal(out, again)


def test_without_a_window_and_resizing_it_is_the_scan(rng) -> None:
    voxels = rng.normal(size=(9, 7)).astype(np.float32)
    out = np.empty((9, 7), dtype=np.float32)
    prepare_slice(voxels, IntensityTransform(-np.inf, np.inf, 0.0, 1.0), out)
    np.testing.assert_array_equal(out, voxels)


def test_slices_of_one_value_become_the_same_input() -> None:
    """Whatever value below the window it was."""
    outs = []
    for value in (-1000, -400, -31):
        out = np.empty((24, 20), dtype=np.float32)
        assert prepare_slice(np.full((50, 33), value, dtype=np.int16), WINDOW, out) == 0
        outs.append(out.tobytes())
    assert len(set(outs)) == 1


@pytest.mark.parametrize("n_in", [1, 2, 3, 7, 100, 512])
@pytest.mark.parametrize("n_out", [1, 2, 5, 8, 256, 700])
def test_taps_are_the_weights(n_in: int, n_out: int) -> None:
    taps = axis_taps(n_in, n_out)
    if n_in == n_out:
        assert taps is None
        return
    matrix = np.zeros((n_out, n_in), dtype=np.float32)
    for index, weight in zip(taps.indices, taps.weights, strict=True):
        matrix[np.arange(n_out), index] += weight[:, 0]
    np.testing.assert_array_equal(matrix, axis_weights(n_in, n_out))


@pytest.mark.parametrize(("n_in", "n_out"), [(72, 66), (66, 72), (50, 100), (100, 50), (7, 3)])
def test_the_nearest_is_that_of_scipy(n_in, n_out):
    """Ties included, which rounding decides."""
    places = n_in / n_out * (np.arange(n_out) + 0.5) - 0.5
    line = np.arange(n_in, dtype=float)
    expected = ndimage.map_coordinates(line, [places], order=0, mode="nearest")
    np.testing.assert_array_equal(axis_taps(n_in, n_out, "nearest").indices[0], expected)


@pytest.mark.parametrize(("n_in", "n_out"), [(40, 23), (23, 40), (9, 17), (1, 3)])
def test_splines_are_those_of_skimage(rng, n_in, n_out):
    values = rng.normal(size=(n_in, 1))
    expected = resize(values, (n_out, 1), order=3, mode="edge", clip=False, anti_aliasing=False)
    taps = axis_taps(n_in, n_out, "cubic")
    found = sum(w * values[n] for n, w in zip(taps.indices, taps.weights, strict=True))
    np.testing.assert_allclose(found, expected, atol=1e-5)
