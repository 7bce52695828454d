"""Separable resizing against PyTorch, scipy and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.volumes import axis_weights, nearest_indices, resize_array

lengths = st.integers(1, 40)


@given(lengths, lengths, st.booleans())
@settings(deadline=None)
def test_weights_sum_to_one_and_are_symmetric(n_in, n_out, antialias):
    weights = axis_weights(n_in, n_out, antialias)
    assert weights.shape == (n_out, n_in)
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def test_weights_by_hand():
    np.testing.assert_allclose(
        axis_weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], atol=1e-7
    )
    # Triangle of half width 2 around 0.5 and 2.5: 1/4, 3/4, 3/4, 1/4, less what hangs over.
    np.testing.assert_allclose(
        axis_weights(4, 2), np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7, atol=1e-7
    )


@given(lengths, lengths)
@settings(deadline=None, max_examples=50)
def test_linear_agrees_with_torch(n_in, n_out):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(n_in * 41 + n_out).normal(size=(n_in, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None],
        size=(n_out, 3),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0, 0].numpy()
    np.testing.assert_allclose(axis_weights(n_in, n_out) @ values, expected, atol=1e-5)


@given(lengths, lengths)
@settings(deadline=None)
def test_nearest_is_the_pixel_that_holds_the_centre(n_in, n_out):
    centres = [Fraction(2 * o + 1, 2 * n_out) * n_in for o in range(n_out)]
    assert nearest_indices(n_in, n_out).tolist() == [int(centre) for centre in centres]


@given(
    st.tuples(lengths, lengths, lengths),
    st.tuples(lengths, lengths, lengths),
    st.sampled_from("CF"),
    st.sampled_from([np.int16, np.float32, np.float64, np.uint8]),
)
@settings(deadline=None, max_examples=50)
def test_resize_array_is_three_matrix_products(shape, wanted, order, dtype):
    array = np.random.default_rng(1).integers(0, 200, shape).astype(dtype, order=order)
    got = resize_array(array, wanted)
    weights = [axis_weights(a, b).astype(np.float64) for a, b in zip(shape, wanted, strict=True)]
    expected = np.einsum("ijk,ai,bj,ck->abc", array.astype(np.float64), *weights, optimize=True)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-3)


@given(st.tuples(lengths, lengths, lengths), st.tuples(lengths, lengths, lengths))
@settings(deadline=None, max_examples=50)
def test_nearest_agrees_with_scipy(shape, wanted):
    array = np.random.default_rng(2).integers(0, 60000, shape).astype(np.uint16)
    got = resize_array(array, wanted, "nearest")
    assert got.dtype == np.uint16
    # scipy rounds half to even, we upwards: compare where no coordinate is a tie.
    grids = [np.arange(b) * (a / b) + (a / b - 1) / 2 for a, b in zip(shape, wanted, strict=True)]
    clear = [np.abs(g - np.floor(g) - 0.5) > 1e-6 for g in grids]
    coordinates = np.stack(np.meshgrid(*grids, indexing="ij"))
    expected = scipy.ndimage.map_coordinates(array, coordinates, order=0, mode="nearest")
    keep = np.ix_(*clear)
    np.testing.assert_array_equal(got[keep], expected[keep])


def test_enlarging_agrees_with_scipy(rng):
    array = rng.normal(size=(5, 7, 6))
    got = resize_array(array, (11, 7, 13))
    expected = scipy.ndimage.zoom(
        array, (11 / 5, 1, 13 / 6), order=1, mode="nearest", grid_mode=True
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_chosen_axes_and_channels(rng):
    array = rng.normal(size=(4, 6, 8, 3)).astype(np.float32)
    got = resize_array(array, (5, 10), axes=(2, 1))
    assert got.shape == (4, 10, 5, 3)
    for n in range(3):
        np.testing.assert_allclose(got[..., n], resize_array(array[..., n], (4, 10, 5)), atol=1e-5)


def test_nothing_to_do_gives_the_array_itself(rng):
    array = rng.normal(size=(4, 5, 6)).astype(np.float32)
    assert resize_array(array, (4, 5, 6)) is array


@pytest.mark.parametrize(("shape", "axes"), [((0, 2), None), ((2,), (3,)), ((2,), (-1,))])
def test_impossible_requests(shape, axes):
    with pytest.raises(ValueError, match="cannot resize axes"):
        resize_array(np.zeros((3, 4, 5)), shape, axes=axes)
