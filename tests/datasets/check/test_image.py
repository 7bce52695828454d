"""Measurements of a scan against numpy on the whole array, digests against every re-saving."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.datasets.check.image import measure_channel
from leanseg.volumes import Volume, reorient

CODES = [
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for flips in product((0, 1), repeat=3)
]
AFFINE = np.array([[1.5, 0.1, 0, -20], [-0.1, 2, 0.2, 7], [0, 0.1, 4, 30], [0, 0, 0, 1.0]])


def digests(array, affine=AFFINE):
    facts = measure_channel(array, affine)
    return facts.digest, facts.mirror_digest


@pytest.fixture
def scan(rng):
    return rng.integers(-1000, 1500, (9, 7, 5)).astype(np.int16)


def test_all_48_orientations_have_one_digest(scan):
    found = set()
    for code in CODES:
        turned = reorient(Volume(scan, AFFINE), code)
        found.add(digests(turned.array, turned.affine))
    assert len(CODES) == 48
    assert len(found) == 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64, ">i2"])
@pytest.mark.parametrize("order", "CF")
def test_the_voxel_type_and_memory_order_play_no_part(scan, dtype, order):
    assert digests(np.array(scan, dtype=dtype, order=order)) == digests(scan)


def test_minus_zero_is_zero():
    zeros = np.zeros((3, 4, 5), np.float32)
    zeros[1, 1, 1] = 7
    minus = np.where(zeros == 0, np.float32(-0.0), zeros)
    assert digests(minus) == digests(zeros)


@settings(max_examples=40, deadline=None)
@given(
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    order=st.permutations(range(3)),
    seed=st.integers(0, 2**32 - 1),
    floats=st.booleans(),
)
def test_mirroring_and_turning_keep_the_second_digest_alone(flips, order, seed, floats):
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(6, 5, 4)).astype(np.float32)
    if not floats:
        array = (100 * array).astype(np.int16)
    changed = np.flip(array, [n for n in range(3) if flips[n]]).transpose(order)
    same, mirrored = digests(array)
    other_same, other_mirrored = digests(changed)
    assert mirrored == other_mirrored
    assert (same == other_same) == (not any(flips) and list(order) == [0, 1, 2])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), change=st.sampled_from([1, -3, 1000]))
def test_one_changed_voxel_changes_both_digests(seed, change):
    rng = np.random.default_rng(seed)
    array = rng.integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    changed = array.copy()
    changed[tuple(rng.integers(0, array.shape))] += change
    assert all(a != b for a, b in zip(digests(array), digests(changed), strict=True))


def test_a_scan_of_another_shape_is_another_scan(scan):
    assert digests(scan[:, :, :4])[1] != digests(scan)[1]


def test_grey_values_are_those_of_the_whole_array(rng):
    array = rng.normal(0, 300, (20, 21, 22)).astype(np.float32)
    array[0, 0, :5], array[1, 1, :3], array[2, 2, 2] = np.nan, np.inf, -np.inf
    facts = measure_channel(array, AFFINE)
    finite = array[np.isfinite(array)]
    assert (facts.n_nan, facts.n_infinite) == (5, 4)
    assert (facts.low, facts.high) == (finite.min(), finite.max())
    expected = np.percentile(finite, (1, 50, 99))
    assert (facts.p1, facts.p50, facts.p99) == pytest.approx(tuple(expected), rel=1e-6)


def test_percentiles_of_a_large_scan_are_sampled_evenly(rng):
    array = rng.normal(0, 300, (160, 150, 100)).astype(np.float32)
    facts = measure_channel(array, AFFINE)
    expected = np.percentile(array, (1, 50, 99))
    assert (facts.p1, facts.p50, facts.p99) == pytest.approx(tuple(expected), abs=6)


def test_a_scan_of_nothing_finite_is_measured():
    facts = measure_channel(np.full((3, 4, 5), np.nan, np.float32), AFFINE)
    assert facts.n_nan == 60
    assert np.isnan([facts.low, facts.high, facts.p50, facts.body_x_mm]).all()


@pytest.mark.parametrize("code", ["RAS", "LPS", "SAL", "PIR"])
def test_the_body_is_found_in_world_space(code):
    x = 2.0 * np.arange(100) - 40
    array = np.full((100, 20, 10), -1000, np.int16)
    array[(x >= 20) & (x <= 120)] = 40
    turned = reorient(Volume(array, np.diag([2.0, 3, 4, 1]) + _shift(-40, 5, 6)), code)
    facts = measure_channel(turned.array, turned.affine)
    assert facts.body_x_mm == pytest.approx(70)
    assert facts.body_width_mm == pytest.approx(102)


def _shift(*by):
    shift = np.zeros((4, 4))
    shift[:3, 3] = by
    return shift
