"""Deciding slices: the same, to the last voxel, as resizing all classes and comparing them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from leanseg.evaluation.calibration import scaled
from leanseg.frames.interpolation import axis_taps
from leanseg.inference.decide import decide_slice, resize_probabilities
from leanseg.volumes import axis_weights


def resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whole maps, the sums tap by tap in order: rows first, then columns."""
    for axis, n_out in enumerate(shape):
        n_in = values.shape[axis]
        if n_in == n_out:
            continue
        weights = axis_weights(n_in, n_out)
        lines = np.moveaxis(values, axis, 0)
        out = np.zeros((n_out, lines.shape[1]), dtype=np.float32)
        for o in range(n_out):
            for i in np.flatnonzero(weights[o]):
                out[o] += weights[o, i] * lines[i]
        values = np.moveaxis(out, 0, axis)
    return values


def decided(
    probabilities: np.ndarray, shape: tuple[int, int], dtype=np.uint8, threshold: float = 0.5
) -> np.ndarray:
    if len(probabilities) == 1:
        return (resized(probabilities[0], shape) > np.float32(threshold)).astype(dtype)
    return np.stack([resized(one, shape) for one in probabilities]).argmax(axis=0).astype(dtype)


def softmax_maps(rng, n: int, shape: tuple[int, int], smooth: float, sharp: float) -> np.ndarray:
    scores = ndimage.gaussian_filter(rng.normal(size=(n, *shape)), (0, smooth, smooth))
    scores = np.exp(sharp * scores / (scores.std() or 1.0))
    if n == 1:
        return (scores / (1 + scores)).astype(np.float32)
    return (scores / scores.sum(axis=0)).astype(np.float32)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
# Down to those below the normal numbers of 32 bits, and so near to 1 that they round to it.
thresholds = st.one_of(
    st.sampled_from([0.5, 0.3, 0.7, 1e-6, 1e-40, 1e-44, 1e-60, 1 - 1e-9]),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 12),
    shape=sizes,
    wanted=sizes,
    smooth=st.sampled_from([0.0, 1.0, 4.0]),
    sharp=st.sampled_from([0.1, 1.0, 8.0]),
    order=st.sampled_from("CF"),
    threshold=thresholds,
)
def test_as_if_everything_were_resized(
    seed, n, shape, wanted, smooth, sharp, order, threshold
) -> None:
    rng = np.random.default_rng(seed)
    probabilities = softmax_maps(rng, n, shape, smooth, sharp)
    out = np.zeros(wanted, dtype=np.uint8, order=order)[::-1, ::-1]
    decide_slice(probabilities, out, threshold=threshold)
    np.testing.assert_array_equal(out, decided(probabilities, wanted, threshold=threshold))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=sizes,
    wanted=sizes,
    threshold=thresholds,
    n_ulps=st.integers(0, 3),
)
def test_around_a_threshold(seed, shape, wanted, threshold, n_ulps) -> None:
    """Values within some units of the last place of it, where rounding alone decides."""
    rng = np.random.default_rng(seed)
    # Numbers that are not negative are in the order of their bits.
    bits = np.array(threshold, np.float32).view(np.int32)
    near = bits + rng.integers(-n_ulps, n_ulps + 1, (1, *shape))
    probabilities = near.clip(0).astype(np.int32).view(np.float32)
    out = np.zeros(wanted, dtype=np.uint8)
    decide_slice(probabilities, out, threshold=threshold)
    np.testing.assert_array_equal(out, decided(probabilities, wanted, threshold=threshold))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6), shape=sizes, wanted=sizes, levels=st.data()
)
def test_ties_and_hard_labels(seed, n, shape, wanted, levels) -> None:
    """Few levels, so that classes tie and values lie on one half; quantised networks do that."""
    rng = np.random.default_rng(seed)
    count = levels.draw(st.sampled_from([2, 3, 5]))
    probabilities = (rng.integers(0, count, (n, *shape)) / (count - 1)).astype(np.float32)
    if n > 1:
        # Sums to one where it can; a pixel without any class stays without.
        probabilities /= np.maximum(probabilities.sum(axis=0), 1e-3)
    out = np.zeros(wanted, dtype=np.uint8)
    decide_slice(probabilities, out)
    np.testing.assert_array_equal(out, decided(probabilities, wanted))


@pytest.mark.parametrize("nudge", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("wanted", [(33, 47), (16, 16), (7, 5), (64, 64)])
def test_within_an_ulp_of_one_half(rng, nudge: int, wanted) -> None:
    """Where rounding alone decides, leaving work out must not decide otherwise."""
    half = np.float32(0.5)
    for _ in range(abs(nudge)):
        half = np.nextafter(half, np.float32(np.sign(nudge)), dtype=np.float32)
    probabilities = np.full((1, 16, 16), half)
    out = np.zeros(wanted, dtype=np.uint8)
    decide_slice(probabilities, out)
    np.testing.assert_array_equal(out, decided(probabilities, wanted))
    # Two classes that are equal but for an ulp in places.
    two = np.full((3, 16, 16), np.float32(1 / 3))
    two[1][rng.random((16, 16)) > 0.5] = np.nextafter(np.float32(1 / 3), np.float32(1))
    out[...] = 0
    decide_slice(two, out)
    np.testing.assert_array_equal(out, decided(two, wanted))


def test_a_class_that_is_nowhere_the_highest_may_be_so_in_between() -> None:
    """Between a pixel of class 1 and one of class 2, class 3 is second in both and wins."""
    probabilities = np.zeros((4, 8, 8), dtype=np.float32)
    probabilities[1, :, :4], probabilities[2, :, :4], probabilities[3, :, :4] = 0.5, 0.1, 0.4
    probabilities[1, :, 4:], probabilities[2, :, 4:], probabilities[3, :, 4:] = 0.1, 0.5, 0.4
    out = np.zeros((8, 24), dtype=np.uint8)
    decide_slice(probabilities, out)
    assert out[0].tolist() == [1] * 11 + [3] * 2 + [2] * 11


def test_past_255_classes(rng) -> None:
    probabilities = softmax_maps(rng, 300, (6, 7), 0.0, 3.0)
    out = np.zeros((13, 11), dtype=np.uint16)
    decide_slice(probabilities, out)
    assert out.max() > 255
    np.testing.assert_array_equal(out, decided(probabilities, (13, 11), np.uint16))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.permutations(range(1, 6)),
    n=st.integers(1, 5),
    shape=sizes,
    wanted=sizes,
    smooth=st.sampled_from([0.0, 1.0, 4.0]),
    levels=st.sampled_from([None, 3, 5]),
    storage=st.sampled_from("CF"),
    threshold=thresholds,
)
def test_regions_as_if_each_were_resized(
    seed, order, n, shape, wanted, smooth, levels, storage, threshold
) -> None:
    rng = np.random.default_rng(seed)
    scores = ndimage.gaussian_filter(rng.normal(size=(n, *shape)), (0, smooth, smooth))
    probabilities = (1 / (1 + np.exp(-3 * scores / (scores.std() or 1.0)))).astype(np.float32)
    if levels is not None:
        # Many values on one half exactly.
        probabilities = np.rint(probabilities * (levels - 1)).astype(np.float32) / (levels - 1)
    regions = [number for number in order if number <= n]
    expected = np.zeros(wanted, dtype=np.uint8)
    for number in regions:
        expected[resized(probabilities[number - 1], wanted) > np.float32(threshold)] = number
    out = np.zeros(wanted, dtype=np.uint8, order=storage)[:, ::-1]
    decide_slice(probabilities, out, regions, threshold)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("nudge", [-1, 0, 1])
@pytest.mark.parametrize("wanted", [(33, 47), (16, 16), (7, 5)])
def test_regions_within_an_ulp_of_one_half(nudge: int, wanted) -> None:
    half = np.float32(0.5)
    if nudge:
        half = np.nextafter(half, np.float32(nudge), dtype=np.float32)
    probabilities = np.full((2, 16, 16), half)
    out = np.zeros(wanted, dtype=np.uint8)
    decide_slice(probabilities, out, (2, 1))
    expected = (resized(probabilities[0], wanted) > np.float32(0.5)).astype(np.uint8)
    np.testing.assert_array_equal(out, expected)


def test_taps_reach_what_they_say() -> None:
    for n_in, n_out in ((5, 12), (12, 5), (7, 7), (256, 512), (512, 100)):
        taps = axis_taps(n_in, n_out)
        if taps is None:
            assert n_in == n_out
            continue
        weights = axis_weights(n_in, n_out) != 0
        for start, stop in ((0, 1), (1, 3), (n_in - 2, n_in), (0, n_in)):
            first, last = taps.reach(start, stop)
            needed = np.flatnonzero(weights[:, start:stop].any(axis=1))
            assert first <= needed[0]
            assert needed[-1] < last


@pytest.mark.parametrize("temperature", [0.6, 2.5])
def test_a_temperature_scales_resized_probabilities_and_moves_no_label(rng, temperature) -> None:
    p = rng.dirichlet(np.full(4, 0.5), (9, 8)).astype(np.float32)
    p = np.ascontiguousarray(np.moveaxis(p, 2, 0))
    plain, cooled = np.zeros((2, 20, 13, 4), dtype=np.float32)
    resize_probabilities(p, plain)
    scale = partial(scaled, temperature=temperature, sigmoid=False)
    resize_probabilities(p, cooled, scale=scale)
    wanted = plain ** (1 / temperature)
    wanted /= wanted.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(cooled, wanted, atol=1e-5)
    np.testing.assert_array_equal(cooled.argmax(axis=2), plain.argmax(axis=2))
    labels = np.zeros((20, 13), dtype=np.uint8)
    decide_slice(p, labels)
    np.testing.assert_array_equal(labels, cooled.argmax(axis=2))
