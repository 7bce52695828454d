from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch.nn import functional

from leanseg.kernels import sparse_convolution
from leanseg.networks import obelisk_operators
from leanseg.networks.obelisk_sampling import (
    obelisk_convolution,
    obelisk_samples,
    reference_convolution,
    regular_grid,
)

# Batch, channels, image size, offsets, 1 or 2 per map, outputs, groups, size of the grid.
CASES = [
    (1, 1, (9, 8, 7), 5, 2, 6, 1, (4, 3, 5)),
    (2, 3, (6, 5, 9), 4, 1, 8, 2, (3, 6, 2)),
    (2, 2, (12, 17, 20), 6, 2, 4, 4, (5, 7, 40)),
    (1, 1, (1, 4, 5), 3, 1, 2, 1, (1, 2, 3)),
]


def tensors(batch, channels, size, offsets, pair, outputs, groups, spread=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, channels, *size, generator=generator)
    where = torch.randn(offsets, pair, 3, generator=generator) * spread
    weight = torch.randn(outputs, channels * offsets // groups, generator=generator)
    return [each.requires_grad_() for each in (images, where, weight)]


def results(function, inputs):
    """Values and gradients for a fixed direction."""
    value = function(*inputs)
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    wanted = [each for each in inputs if each.requires_grad]
    return value.detach(), *torch.autograd.grad((value * direction).sum(), wanted)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


def by_grid_sample(grid, groups):
    def function(images, offsets, weight):
        if offsets.ndim == 3:
            offsets = offsets.expand(len(images), *offsets.shape)
        return reference_convolution(images, offsets, weight, grid, groups=groups)

    return function


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spread", [0.05, 0.3, 2.0])  # with 2.0 most samples lie outside
def test_value_and_gradients_are_those_of_grid_sample(case, spread):
    *sizes, groups, size = case
    inputs, grid = tensors(*sizes, groups, spread=spread), regular_grid(size)
    found = results(lambda *each: obelisk_convolution(*each, grid, groups=groups), inputs)
    assert_same(found, results(by_grid_sample(grid, groups), inputs))


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 9)] * 3),
    grid=st.tuples(*[st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=6)] * 3),
    seed=st.integers(0, 2**16),
    pair=st.sampled_from([1, 2]),
)
def test_any_size_and_any_grid(size, grid, seed, pair):
    inputs = tensors(1, 2, size, 3, pair, 5, 1, seed=seed)
    grid = tuple(torch.tensor(axis, dtype=torch.float32) for axis in grid)
    found = results(lambda *each: obelisk_convolution(*each, grid), inputs)
    assert_same(found, results(by_grid_sample(grid, 1), inputs))


def test_tiles_of_any_height(monkeypatch):
    inputs, grid = tensors(2, 1, (7, 9, 8), 4, 2, 3, 1), regular_grid((5, 6, 4))
    expected = results(by_grid_sample(grid, 1), inputs)
    for tile in (1, 8, 20):  # 1, 2 and 5 rows at a time: also such as do not divide 6
        monkeypatch.setattr(sparse_convolution, "TILE", tile)
        assert_same(results(lambda *each: obelisk_convolution(*each, grid), inputs), expected)


def test_offsets_of_each_sample():
    images, _, weight = tensors(3, 1, (6, 7, 8), 4, 2, 5, 1)
    offsets = (torch.randn(3, 4, 2, 3) * 0.3).requires_grad_()
    grid = regular_grid((3, 4, 5))
    found = results(lambda *each: obelisk_convolution(*each, grid), (images, offsets, weight))
    assert_same(found, results(by_grid_sample(grid, 1), (images, offsets, weight)))


def test_samples_are_those_of_scipy(rng):
    """Third party: linear interpolation in voxels with zeros around, offsets to the last bit."""
    image = rng.normal(size=(7, 6, 9)).astype(np.float32)
    offsets = rng.normal(size=(4, 1, 3)).astype(np.float32) * 0.4
    z, y, x = regular_grid((4, 5, 3))
    found = obelisk_convolution(
        torch.from_numpy(image)[None, None], torch.from_numpy(offsets), torch.eye(4), (z, y, x)
    )[0]
    padded = np.pad(image, 2)  # scipy's own "constant" stops half a voxel early
    for k, (column, row, depth) in enumerate(offsets[:, 0]):
        where = np.meshgrid(
            (z.numpy() + depth + 1) / 2 * 6 + 2,
            (y.numpy() + row + 1) / 2 * 5 + 2,
            (x.numpy() + column + 1) / 2 * 8 + 2,
            indexing="ij",
        )
        expected = map_coordinates(padded, where, order=1, cval=0.0)
        np.testing.assert_allclose(found[k].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_offsets_on_a_lattice_are_a_dense_convolution(channels):
    """Paper 004, Fig 1: offsets of whole voxels make a 3 x 3 x 3 convolution, zeros outside."""
    size = (5, 6, 7)
    images = torch.randn(2, channels, *size)
    kernel = torch.randn(4, channels, 3, 3, 3)
    steps = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)  # depth, row, column
    offsets = (steps * 2 / (torch.tensor(size) - 1)).flip(-1)[:, None]
    found = obelisk_convolution(images, offsets, kernel.flatten(1), regular_grid(size))
    torch.testing.assert_close(
        found, functional.conv3d(images, kernel, padding=1), atol=1e-4, rtol=0
    )


def test_equal_offsets_of_a_pair_cancel():
    images, offsets, weight = tensors(1, 1, (6, 5, 7), 4, 1, 3, 1)
    twins = offsets.expand(-1, 2, -1)
    assert not obelisk_convolution(images, twins, weight, regular_grid((3, 3, 3))).any()


def test_gradients_in_float64_by_finite_differences():
    """Float64 goes to the reference, so this holds the reference of all the other tests."""
    images, offsets, weight = (
        each.detach().double().requires_grad_() for each in tensors(1, 2, (3, 4, 3), 2, 2, 2, 1)
    )
    grid = tuple(axis.double() for axis in regular_grid((2, 2, 3)))
    torch.autograd.gradcheck(
        lambda *each: obelisk_convolution(*each, grid), (images, offsets, weight), eps=1e-7
    )
    points = torch.rand(1, 3, 3, dtype=torch.float64) * 2 - 1
    torch.autograd.gradcheck(
        lambda *each: obelisk_samples(*each, points), (images, offsets), eps=1e-7
    )


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_types_are_sampled_in_float32_and_rounded_once(kind):
    images, offsets, weight = (each.detach() for each in tensors(1, 2, (6, 5, 7), 3, 2, 4, 1))
    images, grid = images.to(kind), regular_grid((3, 4, 3))
    found = obelisk_convolution(images, offsets, weight, grid)
    expected = obelisk_convolution(images.float(), offsets, weight, grid).to(kind)
    assert torch.equal(found, expected)
    points = torch.rand(1, 5, 3) * 2 - 1
    found = obelisk_samples(images, offsets, points)
    assert torch.equal(found, obelisk_samples(images.float(), offsets, points).to(kind))


def test_points_of_a_grid_are_the_grid():
    images, offsets, _ = tensors(2, 2, (6, 5, 7), 3, 2, 4, 1)
    z, y, x = regular_grid((3, 4, 2))
    points = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1).reshape(1, -1, 3)
    found = obelisk_samples(images.detach(), offsets, points.expand(2, -1, 3))
    expected = obelisk_convolution(images, offsets, torch.eye(6), (z, y, x))
    torch.testing.assert_close(found, expected.flatten(2))


def test_not_a_number_among_the_offsets_reads_zeros_like_grid_sample():
    images, offsets, weight = (each.detach() for each in tensors(1, 1, (5, 5, 5), 2, 1, 2, 1))
    offsets[0] = float("nan")
    offsets[1] = float("inf")
    assert not obelisk_convolution(images, offsets, weight, regular_grid((3, 3, 3))).any()
    assert not obelisk_samples(images, offsets, torch.zeros(1, 4, 3)).any()


def test_same_bits_on_repetition_and_on_more_threads():
    inputs, grid = tensors(2, 2, (9, 8, 7), 5, 2, 6, 1), regular_grid((6, 5, 4))

    def run():
        return results(lambda *each: obelisk_convolution(*each, grid), inputs)

    threads, alone = torch.get_num_threads(), run()
    try:
        torch.set_num_threads(3)
        several, again = run(), run()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(several, again, strict=True))
    assert torch.equal(several[0], alone[0])
    assert_same(several, alone)


def test_gradient_of_the_image_keeps_to_its_memory(monkeypatch):
    """With room for a single private copy the threads give way to one."""
    inputs, grid = tensors(1, 1, (9, 8, 7), 5, 2, 6, 1), regular_grid((6, 5, 4))
    monkeypatch.setattr(obelisk_operators, "GRADIENT_BYTES", 1)
    assert_same(
        results(lambda *each: obelisk_convolution(*each, grid), inputs),
        results(by_grid_sample(grid, 1), inputs),
    )


@pytest.mark.parametrize("wanted", [(True, True, True), (False, True, True), (False, False, True)])
def test_operators_keep_the_contract_of_torch(wanted):
    inputs = tensors(1, 2, (4, 5, 6), 3, 2, 4, 2)
    images, offsets, weight = (
        each.detach().requires_grad_(flag) for each, flag in zip(inputs, wanted, strict=True)
    )
    offsets = offsets[None].detach().requires_grad_(wanted[1])
    torch.library.opcheck(
        torch.ops.leanseg.obelisk_convolve.default,
        (images, offsets, weight, 2, *regular_grid((2, 3, 2))),
        rtol=1e-4,
        atol=1e-4,
    )
