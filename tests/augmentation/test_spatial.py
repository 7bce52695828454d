from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from leanseg.augmentation import build_augmentation
from leanseg.augmentation.affine_noise import AffineNoise
from leanseg.augmentation.separable import cubic_spline, gaussian, map_axes
from leanseg.augmentation.warp import rotation, warp
from leanseg.errors import GeometryError


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.lists(st.integers(1, 12), min_size=2, max_size=3))
def test_warp_equals_scipy(seed, shape):
    random = np.random.default_rng(seed)
    n = len(shape)
    image = random.normal(size=(2, *shape)).astype(np.float32)
    label = random.integers(-1, 4, shape)
    matrix = np.eye(n) + random.normal(0, 0.3, (n, n))
    shift, displacement = random.normal(0, 2, n), random.normal(0, 1, (n, *shape))
    warped, warped_label = warp(
        *map(torch.from_numpy, (image, label, matrix, shift, displacement.astype(np.float32)))
    )
    centre = ((np.array(shape) - 1) / 2).reshape(-1, *[1] * n)
    moved = np.indices(shape) - centre + displacement
    positions = np.tensordot(matrix, moved, 1) + shift.reshape(centre.shape) + centre
    for channel in range(2):
        expected = ndimage.map_coordinates(image[channel], positions, order=1, mode="nearest")
        np.testing.assert_allclose(warped[channel], expected, atol=1e-4)
    expected = ndimage.map_coordinates(label, positions, order=0, mode="nearest")
    assert np.count_nonzero(warped_label.numpy() != expected) <= 0.01 * label.size + 1


def test_rotation_equals_scipy():
    angles = np.random.default_rng(0).uniform(-3, 3, (20, 3))
    for each in angles:
        np.testing.assert_allclose(
            rotation(each), Rotation.from_euler("xyz", each).as_matrix(), atol=1e-12
        )


@pytest.mark.parametrize(("size", "spacing"), [(1, 4.0), (9, 4.0), (10, 3.7), (40, 16.0), (5, 0.5)])
def test_cubic_spline_equals_scipy(size, spacing):
    matrix = cubic_spline(size, spacing)
    # Control point j stands at (j - 1) spacings; its basis function reaches two to either side.
    for j in range(matrix.shape[1]):
        basis = BSpline.basis_element(np.arange(j - 3, j + 2), extrapolate=False)
        expected = np.nan_to_num(basis(np.arange(size) / spacing))
        np.testing.assert_allclose(matrix[:, j], expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 2.5])
def test_gaussian_equals_scipy(sigma):
    image = np.random.default_rng(0).normal(size=(9, 16, 3))
    matrices = [gaussian(size, sigma) for size in image.shape]
    smoothed = map_axes(torch.from_numpy(image), matrices)
    expected = ndimage.gaussian_filter(image, sigma, mode="nearest")
    np.testing.assert_allclose(smoothed, expected, atol=1e-5)


def _maps(augmentation, n, n_samples, size=9):
    """What an augmentation does to positions: (samples, n, *spatial), from voxel (size // 2,)*n."""
    lines = [torch.arange(size, dtype=torch.float32) - size // 2] * n
    ramps = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    image = ramps.expand(n_samples, *ramps.shape)
    label = torch.zeros(n_samples, *ramps.shape[1:], dtype=torch.long)
    return augmentation.apply(image, label, augmentation.draw(range(n_samples)))[0]


def _at_the_centre(maps):
    """Matrix (samples, n, n) and shift (samples, n) from central differences."""
    n, middle = maps.shape[1], maps.shape[-1] // 2
    here = [slice(None)] * 2 + [middle] * n
    columns = []
    for axis in range(n):
        one, two = list(here), list(here)
        one[2 + axis], two[2 + axis] = middle + 1, middle - 1
        columns.append((maps[tuple(one)] - maps[tuple(two)]) / 2)
    return torch.stack(columns, dim=2), maps[tuple(here)]


@pytest.mark.parametrize("n", [2, 3])
def test_spatial_draws_the_defaults_of_nnunet(n):
    matrices, shifts = _at_the_centre(_maps(build_augmentation("spatial"), n, 1500, size=7))
    assert shifts.abs().max() < 1e-5
    zoom = torch.linalg.det(matrices) ** (1 / n)
    rotation = matrices / zoom[:, None, None]
    torch.testing.assert_close(
        rotation @ rotation.mT, torch.eye(n).expand(1500, n, n), rtol=0, atol=1e-4
    )
    zoomed = (zoom - 1).abs() > 1e-5
    turned = (rotation - torch.eye(n)).abs().amax(dim=(1, 2)) > 1e-5
    for share in (zoomed, turned):
        assert share.float().mean().item() == pytest.approx(0.2, abs=0.04)
    assert (zoomed & turned).float().mean().item() == pytest.approx(0.04, abs=0.02)
    assert 0.7 <= zoom.min() < 0.72 and 1.37 < zoom.max() <= 1.4
    angles = np.abs(Rotation.from_matrix(_in_3d(rotation[turned])).as_euler("xyz", degrees=True))
    assert 28.5 < angles[:, 2].max() <= 30.001
    if n == 3:
        assert (angles.max(axis=0) > 28.5).all() and (angles <= 30.001).all()


def _in_3d(matrices):
    whole = torch.eye(3).repeat(len(matrices), 1, 1)
    whole[:, : matrices.shape[1], : matrices.shape[2]] = matrices
    return whole.double().numpy()


def test_rotation_about_one_axis_leaves_it():
    turning = build_augmentation(
        "spatial", rotation_deg=[0.0, 0.0, 40.0], zoom=[1.0, 1.0], probability=1.0
    )
    matrices, _ = _at_the_centre(_maps(turning, 3, 20))
    torch.testing.assert_close(matrices[:, 2], torch.tensor([0.0, 0, 1]).expand(20, 3))
    torch.testing.assert_close(matrices[:, :, 2], torch.tensor([0.0, 0, 1]).expand(20, 3))
    assert (matrices[:, 0, 1].abs() > 0.05).float().mean() > 0.7


def test_elastic_displacement_is_bounded_smooth_and_does_not_fold():
    size, elastic, spacing = 33, 3.0, 8.0
    bending = build_augmentation(
        "spatial", rotation_deg=0.0, zoom=[1.0, 1.0], elastic=elastic, elastic_spacing=spacing,
        probability=1.0,
    )  # fmt: skip
    maps = _maps(bending, 2, 12, size=size)
    lines = torch.arange(size, dtype=torch.float32) - size // 2
    moved = maps - torch.stack(torch.meshgrid(lines, lines, indexing="ij"))
    inner = moved[:, :, 4:-4, 4:-4]
    assert 0.5 * elastic < inner.abs().max() <= elastic
    assert inner.std() > 0.2 * elastic
    # The slope of a cubic B-spline is at most the largest step between its control points.
    slopes = torch.cat([inner.diff(dim=2).flatten(), inner.diff(dim=3).flatten()])
    assert slopes.abs().max() <= 2 * elastic / spacing
    interior = maps[:, :, 4:-4, 4:-4]
    rows, columns = interior.diff(dim=2)[..., :-1], interior.diff(dim=3)[:, :, :-1]
    assert (rows[:, 0] * columns[:, 1] - rows[:, 1] * columns[:, 0]).min() > 0


def test_shift_is_a_share_of_the_size():
    shifting = build_augmentation(
        "spatial", rotation_deg=0.0, zoom=[1.0, 1.0], shift=0.25, probability=1.0
    )
    _, shifts = _at_the_centre(_maps(shifting, 3, 300))
    assert (shifts.abs().amax(dim=0) > 2.1).all() and shifts.abs().max() <= 2.25 + 1e-5


class _Given:
    """A generator that draws what it is given."""

    def __init__(self, numbers):
        self.numbers = numbers

    def standard_normal(self, shape):
        return self.numbers.reshape(shape)


@pytest.mark.parametrize("shape", [(9, 12), (8, 11, 6)])
def test_affine_noise_by_scipy(shape):
    """Paper 004's matrix in voxels: image beyond the border continued, label background."""
    random = np.random.default_rng(3)
    n, noise = len(shape), random.normal(size=(3, 4))
    image = torch.from_numpy(random.normal(size=(2, *shape))).float()
    label = torch.from_numpy(random.integers(1, 5, shape))
    moved, moved_label = AffineNoise(sigma=0.3).change(image, label, _Given(noise))
    # theta acts on (last axis, ..., first axis) in [-1, 1] from voxel centre to voxel centre.
    noise = noise[:n, [*range(n), 3]]
    theta = np.eye(n) + 0.3 * noise[:, :n]
    half = (np.array(shape) - 1) / 2
    matrix = np.diag(half) @ theta[::-1, ::-1] @ np.diag(1 / half)
    offset = half + half * 0.3 * noise[::-1, n] - matrix @ half
    for channel in range(2):
        expected = ndimage.affine_transform(
            image[channel].double().numpy(), matrix, offset, order=1, mode="nearest"
        )
        np.testing.assert_allclose(moved[channel], expected, atol=1e-4)
    expected = ndimage.affine_transform(
        label.numpy(), matrix, offset, order=0, mode="grid-constant"
    )
    assert np.count_nonzero(moved_label.numpy() != expected) <= 0.01 * label.numel() + 1
    assert (moved_label == 0).any() and (moved_label > 0).any()


def test_affine_noise_is_on_all_twelve_numbers():
    n_samples, size, sigma = 4000, 7, 0.02
    maps = _maps(build_augmentation("affine-noise", sigma=sigma), 3, n_samples, size=size)
    matrices, shifts = _at_the_centre(maps)
    theta = torch.cat([matrices - torch.eye(3), shifts[..., None] / (size // 2)], dim=2)
    assert (theta.mean(dim=0).abs() < 4 * sigma / math.sqrt(n_samples)).all()
    torch.testing.assert_close(
        theta.std(dim=0), torch.full((3, 4), sigma), rtol=4 / math.sqrt(2 * n_samples), atol=0
    )
    assert build_augmentation("affine-noise").sigma == 0.075


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
def test_mirror_equals_numpy(shape):
    random = np.random.default_rng(0)
    image = torch.from_numpy(random.normal(size=(2, 3, *shape))).float()
    label = torch.from_numpy(random.integers(-1, 5, (2, *shape)))
    for axes in (None, [0], [1, 0]):
        mirror = build_augmentation("mirror", axes=axes, probability=1.0)
        flipped, flipped_label = mirror.apply(image, label, mirror.draw([0, 1]))
        chosen = range(len(shape)) if axes is None else axes
        expected = np.flip(image.numpy(), [2 + axis for axis in chosen])
        np.testing.assert_array_equal(flipped, expected)
        np.testing.assert_array_equal(
            flipped_label, np.flip(label.numpy(), [1 + axis for axis in chosen])
        )


def test_mirror_flips_each_axis_by_itself():
    n = 3000
    image = torch.arange(8.0).reshape(1, 1, 2, 2, 2).expand(n, -1, -1, -1, -1)
    label = image[:, 0].long()
    mirror = build_augmentation("mirror", axes=[0, 2], probability=0.3)
    corners = mirror.apply(image, label, mirror.draw(range(n)))[1][:, 0, 0, 0]
    shares = torch.bincount(corners, minlength=8) / n
    expected = torch.zeros(8)
    expected[0], expected[4], expected[1], expected[5] = 0.49, 0.21, 0.21, 0.09
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.035)


def test_mirror_along_an_axis_that_slices_do_not_have():
    mirror = build_augmentation("mirror", axes=[2])
    image, label = torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    with pytest.raises(GeometryError, match=r"axis 2 is beyond the last axis of an image of 2"):
        mirror.apply(image, label, mirror.draw([0]))
