"""Paper 002's two augmentations, against scipy and by their statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from leanseg.augmentation import build_augmentation
from leanseg.augmentation.base import augments
from leanseg.augmentation.mia import _looked_up
from leanseg.augmentation.separable import centred_cubic_spline
from leanseg.errors import RecipeError

SHAPES = [(15, 20), (16, 14, 7)]
# What leaves one part of an augmentation alone.
STILL = {"rotation_deg": 0.0, "noise_sd": 0.0, "shift_share": 0.0}
FLAT = {"ends": 0.0, "slope": [1.0, 1.0]}


def _sample(shape, channels=2, seed=0):
    random = np.random.default_rng(seed)
    image = random.normal(size=(channels, *shape)).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(random.integers(-1, 4, shape))


def _generator(stream):
    return np.random.Generator(np.random.Philox(stream))


def _ctia(**options):
    return build_augmentation("ctia", **{**STILL, "fraction": 1.0, **options})


def test_noise_is_normal_with_the_given_sd():
    image, label = torch.full((4, 2, 30, 30, 8), 7.0), torch.ones(4, 30, 30, 8, dtype=torch.long)
    noisy = _ctia(noise_sd=0.05)
    after, after_label = noisy.apply(image, label, noisy.draw(range(4)))
    noise = (after - image).double().numpy()
    n = noise.size
    assert after_label is label
    assert abs(noise.mean()) < 4 * 0.05 / math.sqrt(n)
    assert noise.std() == pytest.approx(0.05, rel=4 / math.sqrt(2 * n))
    assert stats.kstest(noise.ravel() / 0.05, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_equals_scipy_in_every_slice(shape):
    turning = _ctia(rotation_deg=16.0)
    angles = []
    for stream in range(20):
        image, label = _sample(shape, seed=stream)
        after, after_label = turning.change(image, label, _generator(stream))
        angles.append(turning._drawn(_generator(stream)).angle_deg)
        cosine, sine = math.cos(math.radians(angles[-1])), math.sin(math.radians(angles[-1]))
        matrix = np.eye(len(shape))
        matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
        centre = (np.array(shape) - 1) / 2
        offset = centre - matrix @ centre
        for before, now in zip(image.numpy(), after, strict=True):
            expected = ndimage.affine_transform(before, matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(now, expected, atol=1e-4)
        expected = ndimage.affine_transform(label.numpy(), matrix, offset, order=0, mode="nearest")
        assert np.count_nonzero(after_label.numpy() != expected) <= 0.01 * label.numel() + 1
    assert -16 <= min(angles) < -10 and 10 < max(angles) <= 16


@pytest.mark.parametrize("shape", [(9, 9), (8, 8), (8, 8, 5)])
def test_a_quarter_turn_equals_rot90(shape):
    image, label = _sample(shape)
    after, after_label = _ctia(rotation_deg=180.0).change(image, label, _Quarter())
    np.testing.assert_allclose(after, np.rot90(image, axes=(2, 1)), atol=1e-4)
    np.testing.assert_array_equal(after_label, np.rot90(label, axes=(1, 0)))


class _Quarter:
    """A generator whose angles, uniform in +-180 degrees, are 90."""

    def random(self, n):
        return np.full(n, 0.75)


@pytest.mark.parametrize("fraction", [1.0, 0.8, 0.1])
def test_the_range_of_a_fifth_of_all_samples_is_shifted(fraction):
    n = 3000
    image = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2).expand(n, -1, -1, -1)
    shifting = _ctia(shift_share=0.2, fraction=fraction)
    drawn = shifting.draw(range(n))
    after, _ = shifting.apply(image, torch.zeros(n, 1, 2, dtype=torch.long), drawn)
    offset, factor = after[:, 0, 0, 0], after[:, 0, 0, 1] - after[:, 0, 0, 0]
    shifted = (offset != 0) | (factor != 1)
    share = min(0.2, fraction)
    assert shifted.float().mean().item() == pytest.approx(share, abs=0.03)
    factors, offsets = factor[shifted], offset[shifted]
    assert 0.9 <= factors.min() < 0.91 and 1.09 < factors.max() <= 1.1
    assert -0.1 <= offsets.min() < -0.09 and 0.09 < offsets.max() <= 0.1
    assert abs(np.corrcoef(factors, offsets)[0, 1]) < 0.2
    told = shifting.describe(drawn, (1, 2))
    assert [("grey" in each) for each in told] == shifted.tolist()


def test_both_augment_the_same_samples():
    n = 4000
    for fraction in (0.0, 0.3, 0.8, 1.0):
        chosen = [augments(seed, fraction) for seed in range(n)]
        deviation = math.sqrt(fraction * (1 - fraction) / n)
        assert np.mean(chosen) == pytest.approx(fraction, abs=4 * deviation + 1e-9)
        for name in ("ctia", "mia"):
            drawn = build_augmentation(name, fraction=fraction).draw(range(n))
            assert [each is not None for each in drawn] == chosen
    # A smaller fraction is a part of the larger one.
    assert all(augments(seed, 0.8) for seed in range(n) if augments(seed, 0.3))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 150), spacing=st.floats(1, 64))
def test_the_control_grid_of_mia_equals_scipy(size, spacing):
    matrix = centred_cubic_spline(size, spacing).numpy()
    n = matrix.shape[1]
    if size % 2:
        assert n == 2 * math.ceil((size - 1) / (2 * spacing)) + 3
    else:
        assert n == 2 * math.ceil((size - 1) / (2 * spacing) + 0.5) + 2
    places = (np.arange(size) - (size - 1) / 2) / spacing
    for j in range(n):
        basis = BSpline.basis_element(np.arange(-2, 3) + j - (n - 1) / 2, extrapolate=False)
        np.testing.assert_allclose(matrix[:, j], np.nan_to_num(basis(places)), atol=2e-5)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)


def _positions(drawn, shape, spacings, voxel):
    """Where voxels come from by the original's description, in voxels: (n, *shape)."""
    n = len(shape)
    # The grid in pixels about the centre, with noise; rows times matrices.
    grids = [
        (np.arange(m) - (m - 1) / 2) * s
        for m, s in zip(drawn.points.shape[1:], spacings, strict=True)
    ]
    points = np.stack(np.meshgrid(*grids, indexing="ij")) + drawn.points
    turn = Rotation.from_euler("xyz", drawn.angles_deg, degrees=True).as_matrix()[:n, :n]
    affine = turn @ np.diag(drawn.scale) @ (np.eye(n) + drawn.shear)
    rows = (points.reshape(n, -1).T @ affine).T.reshape(points.shape)
    for axis, (size, spacing, width) in enumerate(zip(shape, spacings, voxel, strict=True)):
        m = rows.shape[axis + 1]
        knots = np.arange(m + 4) - 2 - (m - 1) / 2
        spline = BSpline(knots, np.moveaxis(rows, axis + 1, 0), 3)
        places = (np.arange(size) - (size - 1) / 2) * width / spacing
        rows = np.moveaxis(spline(places), 0, axis + 1)
    centre = ((np.array(shape) - 1) / 2).reshape(-1, *[1] * n)
    return rows / np.array(voxel).reshape(centre.shape) + centre


@pytest.mark.parametrize("labels", ["nearest", "linear"])
@pytest.mark.parametrize("shape", [*SHAPES, (33, 40), (31, 24, 9)])
def test_deformation_equals_scipy(shape, labels):
    n, voxel = len(shape), (1.0, 1.0, 3.0)[: len(shape)]
    bending = build_augmentation(
        "mia", fraction=1.0, elastic_spacing=9.0, slice_distance=3.0, mirror=0.3, labels=labels,
        **FLAT,
    )  # fmt: skip
    for stream in range(4):
        image, label = _sample(shape, seed=stream)
        after, after_label = bending.change(image, label, _generator(stream))
        grid = [
            centred_cubic_spline(size, 9.0 / width).shape[1]
            for size, width in zip(shape, voxel, strict=True)
        ]
        drawn = bending._drawn(grid, _generator(stream))
        positions = _positions(drawn, shape, [9.0] * n, voxel)
        for before, now in zip(image.numpy(), after, strict=True):
            expected = ndimage.map_coordinates(before, positions, order=1, mode="nearest")
            np.testing.assert_allclose(now, expected, atol=2e-3)
        if labels == "nearest":
            expected = ndimage.map_coordinates(label.numpy(), positions, order=0, mode="nearest")
        else:
            values = np.unique(label)
            maps = [
                ndimage.map_coordinates(
                    (label == v).numpy() * 1.0, positions, order=1, mode="nearest"
                )
                for v in values.tolist()
            ]
            expected = values[np.argmax(maps, axis=0)]
        assert np.count_nonzero(after_label.numpy() != expected) <= 0.01 * label.numel() + 1
        assert set(after_label.unique().tolist()) <= set(label.unique().tolist())
        assert not torch.equal(after_label, label)


def test_mia_draws_its_magnitudes():
    augmentation = build_augmentation("mia", elastic_sd=4.0)
    drawn = [augmentation._drawn([6, 7, 4], _generator(stream)) for stream in range(600)]
    angles = np.abs([each.angles_deg for each in drawn])
    assert (angles.max(axis=0) <= [5, 5, 20]).all()
    assert (angles.max(axis=0) > [4.9, 4.9, 19.5]).all()
    scales = np.array([each.scale for each in drawn])
    assert (scales.min(axis=0) < 0.81).all() and (scales.max(axis=0) > 1.19).all()
    assert scales.min() >= 0.8 and scales.max() <= 1.2
    shears = np.array([each.shear for each in drawn])
    assert (np.abs(shears).max(axis=0) > 0.09).sum() == 6 and np.abs(shears).max() <= 0.1
    points = np.array([each.points for each in drawn])
    assert points.shape == (600, 3, 6, 7, 4)
    assert points.std() == pytest.approx(4, rel=4 / math.sqrt(2 * points.size))
    slices = augmentation._drawn([6, 7], _generator(0))
    assert slices.angles_deg[:2].tolist() == [0, 0]


@settings(max_examples=100, deadline=None)
@given(
    stream=st.integers(0, 2**63), ends=st.floats(0, 0.24), low=st.floats(0.05, 1),
    high=st.floats(1, 4),
)  # fmt: skip
def test_the_table_rises_within_its_slopes(stream, ends, low, high):
    slope = [min(low, 1 - 2 * ends), max(high, 1 + 2 * ends)]
    table = build_augmentation("mia", ends=ends, slope=slope)._table(_generator(stream))
    assert len(table) == 65
    slopes = table.double().diff() * 64
    assert slope[0] - 1e-4 <= slopes.min() and slopes.max() <= slope[1] + 1e-4
    assert abs(table[0]) <= ends + 1e-6 and abs(table[-1] - 1) <= ends + 1e-6
    image = torch.linspace(-3, 5, 300)
    assert (_looked_up(image, image, table).diff() > 0).all()


def test_the_table_varies_and_bends():
    augmentation = build_augmentation("mia")
    tables = np.stack([augmentation._table(_generator(stream)) for stream in range(500)])
    assert tables[:, 0].min() < -0.095 and tables[:, 0].max() > 0.095
    assert tables[:, -1].min() < 0.905 and tables[:, -1].max() > 1.095
    straight = np.linspace(tables[:, 0], tables[:, -1], 65).T
    assert np.abs(tables - straight).max(axis=1).mean() > 0.05


def test_looking_up_equals_numpy_and_goes_on_straight():
    table = torch.tensor([0.1, 0.2, 0.8, 0.9])
    window = torch.tensor([-2.0, 4.0, 1.0])
    values = torch.tensor([-2.0, -1.0, 0.0, 1.5, 2.7, 4.0])
    unit = (values.numpy() + 2) / 6
    expected = np.interp(unit, np.linspace(0, 1, 4), table) * 6 - 2
    np.testing.assert_allclose(_looked_up(values, window, table), expected, atol=1e-5)
    beyond = _looked_up(torch.tensor([-3.0, 5.0]), window, table)
    # Slopes of 0.3 at both ends.
    np.testing.assert_allclose(beyond, [-2 + 6 * 0.1 - 0.3, -2 + 6 * 0.9 + 0.3], atol=1e-5)


def test_a_table_for_every_channel_and_none_for_a_flat_one():
    image, label = _sample((12, 13))
    image[1] = image[0]
    greys = build_augmentation(
        "mia", fraction=1.0, rotation_deg=0.0, scale=[1.0, 1.0], shear=0.0, elastic_sd=0.0
    )
    after, after_label = greys.change(image, label, _generator(3))
    assert after_label is label
    assert not torch.equal(after[0], after[1])
    for channel in after:
        assert torch.equal(channel.flatten().argsort(), image[0].flatten().argsort())
    flat = torch.full((1, 6, 7), 2.5)
    after, _ = greys.change(flat, label[:6, :7], _generator(3))
    torch.testing.assert_close(after, flat)


def test_what_is_drawn_is_told():
    mia, ctia = build_augmentation("mia", fraction=0.5), build_augmentation("ctia", fraction=0.5)
    for augmentation in (mia, ctia):
        drawn = augmentation.draw(range(20))
        for shape in SHAPES:
            told = augmentation.describe(drawn, shape)
            assert [bool(each) for each in told] == [each is not None for each in drawn]
            assert all("turned" in each for each in told if each)
    assert build_augmentation("mia").describe([1], (8, 9))[0].count("°") == 1
    assert build_augmentation("mia").describe([1], (8, 9, 5))[0].count("°") == 3


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ctia", {"fraction": 1.1}, "'fraction' is 1.1"),
        ("ctia", {"factor": [1.1, 0.9]}, r"should be \[lowest, highest\]"),
        ("ctia", {"noise_sd": -1.0}, "'noise_sd'"),
        ("mia", {"labels": "cubic"}, "'labels' is 'cubic'"),
        (
            "mia",
            {"ends": 0.3},
            r"'ends' is 0.3, so that slopes of 0.4 to 1.6 .* \[0.5, 2.0\]; lower",
        ),
        ("mia", {"slope": [1.0, 1.0]}, "lower 'ends' or widen 'slope'"),
        ("mia", {"slice_distance": 0.0}, "'slice_distance'"),
        ("mia", {"elastic_spacing": 0.5}, "'elastic_spacing'"),
    ],
)
def test_refused(name, options, said):
    with pytest.raises(RecipeError, match=said) as caught:
        build_augmentation(name, **options)
    assert "\n" not in str(caught.value) and name in str(caught.value)
