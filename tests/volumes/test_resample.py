"""Resampled volumes stay where they were in the world."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.errors import GeometryError
from leanseg.volumes import (
    Volume,
    reorient,
    resample,
)
from leanseg.volumes.resample import resized_affine

sides = st.integers(1, 12)
shapes = st.tuples(sides, sides, sides)


def some_affine(seed, shear=0.1):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine[:3, :3] = (rotation + shear * rng.uniform(-1, 1, (3, 3))) * rng.uniform(0.5, 4, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def world_grid(affine, shape):
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return nib.affines.apply_affine(affine, indices)


def corners(affine, shape):
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), -1)
    return nib.affines.apply_affine(affine, ends)


@given(st.integers(0, 1000), shapes, shapes)
@settings(deadline=None)
def test_field_of_view_is_kept(seed, shape, wanted):
    affine = some_affine(seed)
    np.testing.assert_allclose(
        corners(resized_affine(affine, shape, wanted), wanted), corners(affine, shape), atol=1e-9
    )


def inner_of(wanted):
    """Away from the edge, where the triangle is whole."""
    return tuple(slice(1 + n // 8, n - 1 - n // 8) for n in wanted)


@given(
    st.integers(0, 1000),
    st.tuples(*[st.integers(4, 12)] * 3),
    st.tuples(*[st.sampled_from(["half", "third", "same", 1, 2, 5, 17])] * 3),
)
@settings(deadline=None, max_examples=40)
def test_resizing_a_linear_ramp_is_world_correct(seed, sizes, changes):
    """Exactly, when enlarging or shrinking by a whole factor."""
    factors = {"half": (2, 1), "third": (3, 1), "same": (1, 1)}
    pairs = [
        (n * factors[c][0], n) if c in factors else (n, n + c)
        for n, c in zip(sizes, changes, strict=True)
    ]
    shape, wanted = zip(*pairs, strict=True)
    gradient = np.array([0.3, -0.2, 0.5])
    affine = some_affine(seed)
    resized = resample(Volume(world_grid(affine, shape) @ gradient, affine), shape=wanted)
    expected = world_grid(resized.affine, wanted) @ gradient
    inner = inner_of(wanted)
    np.testing.assert_allclose(resized.array[inner], expected[inner], atol=1e-3)


@given(st.integers(20, 200), st.floats(1.0, 4.0))
@settings(deadline=None, max_examples=40)
def test_shrinking_by_any_factor_is_unbiased(n_in, factor):
    """A sampled triangle shifts single voxels by under a tenth of one, to no side."""
    n_out = max(5, int(n_in / factor))
    ramp = np.arange(n_in, dtype=np.float64).reshape(-1, 1, 1)
    resized = resample(Volume(ramp, np.eye(4)), shape=(n_out, 1, 1))
    expected = world_grid(resized.affine, (n_out, 1, 1))[..., 0]
    error = (resized.array - expected)[2:-2]
    assert np.abs(error).max(initial=0) < 0.09
    assert abs(error.mean()) < 1e-3


def test_nearest_keeps_labels_and_channels():
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7, 2)).astype(np.uint8)
    resized = resample(Volume(labels, np.eye(4)), shape=(9, 3, 7), interpolation="nearest")
    assert resized.array.dtype == np.uint8
    assert resized.array.shape == (9, 3, 7, 2)


def test_header_is_dropped_with_a_new_grid():
    volume = Volume(np.zeros((4, 4, 4)), np.eye(4), header=nib.Nifti1Header())
    assert resample(volume, shape=(2, 4, 4)).header is None
    assert resample(volume, shape=(4, 4, 4)).header is volume.header


def test_spacing():
    volume = Volume(np.zeros((100, 50, 11)), np.diag([0.8, 0.8, 3.0, 1]))
    resampled = resample(volume, spacing_mm=(1.0, 1.6, 3.0))
    assert resampled.shape == (80, 25, 11)
    np.testing.assert_allclose(resampled.spacing_mm, (1.0, 1.6, 3.0))
    coarse = resample(volume, spacing_mm=(500.0, 3.0, 0.9))
    assert coarse.shape == (1, 13, 37)
    np.testing.assert_allclose(coarse.spacing_mm, (80.0, 40 / 13, 33 / 37))


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, 1), (1, -2, 1), (1, np.nan, 1)])
def test_impossible_spacing(spacing):
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4))
    with pytest.raises(GeometryError, match="three positive numbers"):
        resample(volume, spacing_mm=spacing)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 0)])
def test_impossible_shape(shape):
    with pytest.raises(GeometryError, match="three positive numbers"):
        resample(Volume(np.zeros((2, 2, 2)), np.eye(4)), shape=shape)


@given(st.integers(0, 2**31), st.sampled_from(["linear", "nearest"]))
@settings(deadline=None, max_examples=40)
def test_onto_a_grid_agrees_with_scipy(seed, interpolation):
    rng = np.random.default_rng(seed)
    volume = Volume(rng.normal(size=rng.integers(4, 9, 3)).astype(np.float32), some_affine(seed))
    reference = Volume(np.zeros(rng.integers(3, 9, 3)), some_affine(seed))
    # A finer grid, turned and moved a little: linear interpolation has nothing to smooth.
    turn = np.eye(4)
    turn[:3, :3] = np.diag(rng.uniform(0.3, 0.8, 3)) + rng.uniform(-0.1, 0.1, (3, 3))
    turn[:3, 3] = rng.uniform(-1, 2, 3)
    reference = Volume(reference.array, volume.affine @ turn)
    got = resample(volume, reference, interpolation, outside=-9)
    index = world_grid(np.linalg.inv(volume.affine) @ reference.affine, reference.shape)
    index = np.moveaxis(index, -1, 0)
    order = 1 if interpolation == "linear" else 0
    expected = scipy.ndimage.map_coordinates(volume.array, index, order=order, mode="nearest")
    size = np.array(volume.shape).reshape(3, 1, 1, 1)
    inside = ((index >= -0.5) & (index < size - 0.5)).all(axis=0)
    tie = (np.abs(index - np.floor(index) - 0.5) < 1e-6).any(axis=0)
    keep = ~tie
    expected[~inside] = -9
    np.testing.assert_allclose(got.array[keep], expected[keep], atol=1e-4)
    np.testing.assert_array_equal(got.affine, reference.affine)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAL", "PIR"])
def test_onto_a_grid_another_orientation_undoes_it(codes, rng):
    labels = rng.integers(0, 5, (6, 7, 8)).astype(np.uint8)
    volume = Volume(labels, some_affine(3, shear=0))
    moved = reorient(volume, codes)
    for interpolation in ("nearest", "linear"):
        back = resample(moved, volume, interpolation)
        np.testing.assert_allclose(back.array, labels, atol=1e-4)
    assert resample(moved, volume, "nearest").array.dtype == np.uint8


def test_onto_a_grid_a_coarser_grid_is_antialiased(rng):
    fine = Volume(rng.normal(size=(40, 40, 40)).astype(np.float32), np.eye(4))
    coarse = resample(fine, shape=(10, 10, 40))
    got = resample(fine, Volume(np.zeros((10, 10, 40)), coarse.affine))
    np.testing.assert_allclose(got.array, coarse.array, atol=1e-5)
    assert got.array.std() < 0.4  # point sampling would keep the noise's standard deviation of 1


def test_onto_a_grid_channels_booleans_and_header():
    header = nib.Nifti1Header()
    reference = Volume(np.zeros((3, 3, 3)), np.eye(4), header=header)
    two = Volume(np.stack([np.ones((3, 3, 3)), np.full((3, 3, 3), 2.0)], -1), np.eye(4))
    got = resample(two, reference)
    assert got.header is header
    np.testing.assert_array_equal(got.array, two.array)
    mask = Volume(np.ones((3, 3, 3), bool), np.eye(4))
    assert resample(mask, reference, "nearest").array.dtype == np.bool_


def test_one_grid_at_a_time():
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4))
    with pytest.raises(ValueError, match="exactly one"):
        resample(volume)
    with pytest.raises(ValueError, match="exactly one"):
        resample(volume, volume, spacing_mm=(1, 1, 1))
