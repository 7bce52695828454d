from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from leanseg.augmentation import build_augmentation
from leanseg.augmentation.affine import AffineParameters
from leanseg.errors import GeometryError, RecipeError


def _parameters(*, angle_deg=0.0, zoom=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0), batch=1):
    def repeated(value):
        return torch.tensor([value] * batch, dtype=torch.float64)

    return AffineParameters(
        angle_rad=repeated(math.radians(angle_deg)), zoom=repeated(zoom), shift=repeated(shift)
    )


def _batch(seed=0, batch=4, channels=2, rows=20, columns=33, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, channels, rows, columns, generator=generator)
    label = torch.randint(0, 5, (batch, rows, columns), generator=generator).to(dtype)
    return image, label


def _by_scipy(grid, parameters, sample, order):
    """Keras' composition, rotation . shift . zoom about the centre, through scipy."""
    n = grid.ndim
    angle = parameters.angle_rad[sample].item()
    rotation = np.eye(n)
    rotation[:2, :2] = [
        [math.cos(angle), -math.sin(angle)],
        [math.sin(angle), math.cos(angle)],
    ]
    centre = (np.array(grid.shape) - 1) / 2
    matrix = rotation @ np.diag(parameters.zoom[sample, :n].numpy())
    shift = rotation @ (parameters.shift[sample, :n].numpy() * grid.shape)
    offset = shift + centre - matrix @ centre
    return ndimage.affine_transform(
        grid.astype(np.float64), matrix, offset, order=order, mode="nearest"
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_equals_scipy(seed, rows, columns):
    image, label = _batch(seed, batch=2, rows=rows, columns=columns)
    affine = build_augmentation("affine", rotation_deg=60.0, zoom=0.6, shift=0.5)
    parameters = affine.draw([seed, seed + 1])
    warped, warped_label = affine.apply(image, label, parameters)
    for sample in range(2):
        for channel in range(2):
            expected = _by_scipy(image[sample, channel].numpy(), parameters, sample, order=1)
            np.testing.assert_allclose(warped[sample, channel], expected, atol=1e-4)
        expected = _by_scipy(label[sample].numpy(), parameters, sample, order=0)
        # Positions halfway between pixels may round either way.
        differing = np.count_nonzero(warped_label[sample].numpy() != expected)
        assert differing <= 0.01 * label[sample].numel() + 1


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 9)),
)
def test_volumes_equal_scipy(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 2, *shape, generator=generator)
    label = torch.randint(-1, 5, (2, *shape), generator=generator)
    affine = build_augmentation("affine", rotation_deg=60.0, zoom=0.6, shift=0.5)
    parameters = affine.draw([seed, seed + 1])
    warped, warped_label = affine.apply(image, label, parameters)
    for sample in range(2):
        for channel in range(2):
            expected = _by_scipy(image[sample, channel].numpy(), parameters, sample, order=1)
            np.testing.assert_allclose(warped[sample, channel], expected, atol=1e-4)
        expected = _by_scipy(label[sample].numpy(), parameters, sample, order=0)
        differing = np.count_nonzero(warped_label[sample].numpy() != expected)
        assert differing <= 0.01 * label[sample].numel() + 1


def test_no_motion_is_the_identity_to_the_bit():
    for rows, columns in ((20, 33), (256, 256), (7, 1), (1, 1), (255, 384)):
        image, label = _batch(rows=rows, columns=columns)
        affine = build_augmentation("affine", rotation_deg=0.0, zoom=0.0, shift=0.0)
        parameters = affine.draw(range(4))
        warped, warped_label = affine.apply(image, label, parameters)
        assert torch.equal(warped, image)
        assert torch.equal(warped_label, label)


def test_shift_by_whole_pixels():
    image, label = _batch(rows=20, columns=40)
    parameters = _parameters(shift=(0.1, -0.2, 0.0), batch=4)  # 2 rows, -8 columns
    warped, warped_label = build_augmentation("affine").apply(image, label, parameters)
    # Output (i, j) shows input (i + 2, j - 8); the border's value beyond.
    rows = (torch.arange(20) + 2).clamp(0, 19)
    columns = (torch.arange(40) - 8).clamp(0, 39)
    torch.testing.assert_close(warped, image[:, :, rows][..., columns], rtol=0, atol=1e-6)
    assert torch.equal(warped_label, label[:, rows][:, :, columns])


def test_quarter_turn():
    image, label = _batch(rows=16, columns=16)
    warped, warped_label = build_augmentation("affine").apply(
        image, label, _parameters(angle_deg=90.0, batch=4)
    )
    # in = R (o - c) + c with R = [[0, -1], [1, 0]]: output (i, j) shows input (15 - j, i).
    expected = image.flip(2).transpose(2, 3)
    torch.testing.assert_close(warped, expected, rtol=0, atol=1e-5)
    assert torch.equal(warped_label, label.flip(1).transpose(1, 2))


def test_zoom_above_one_shrinks_along_its_axis():
    image = torch.zeros(1, 1, 41, 41)
    image[0, 0, 10:31, 10:31] = 1.0
    label = image[:, 0].to(torch.uint8)
    _, warped = build_augmentation("affine").apply(image, label, _parameters(zoom=(1.25, 1.0, 1.0)))
    assert warped.any(dim=2).sum() == 17  # 21 / 1.25
    assert warped.any(dim=1).sum() == 21


def test_rotation_keeps_distances_on_images_that_are_not_square():
    image = torch.zeros(1, 1, 60, 120)
    label = torch.zeros(1, 60, 120, dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(120), indexing="ij")
    disk = (rows - 29.5) ** 2 + (columns - 59.5) ** 2 <= 20**2
    label[0][disk] = 1
    image[0, 0] = disk
    for angle in (10.0, 37.0, -80.0):
        _, warped = build_augmentation("affine").apply(image, label, _parameters(angle_deg=angle))
        overlap = (warped[0].bool() & disk).sum() / disk.sum()
        assert overlap > 0.98  # the digital disk's rim
        assert abs(int(warped.sum()) - int(label.sum())) < 0.02 * int(label.sum())


def test_image_and_label_move_together():
    columns = torch.linspace(-1, 1, 64)
    smooth = (columns[:, None] ** 2 + (columns[None] - 0.2) ** 2)[None, None].expand(6, 1, -1, -1)
    label = (smooth[:, 0] < 0.4).to(torch.uint8)
    affine = build_augmentation("affine")
    warped, warped_label = affine.apply(smooth, label, affine.draw(range(6)))
    disagreement = (warped[:, 0] < 0.4) != warped_label.bool()
    assert disagreement.float().mean() < 0.01
    assert (warped_label != label).float().mean() > 0.03  # it did move


def test_batch_equals_sample_by_sample():
    image, label = _batch()
    affine = build_augmentation("affine")
    parameters = affine.draw([5, 6, 7, 8])
    together = affine.apply(image, label, parameters)
    for sample, seed in enumerate([5, 6, 7, 8]):
        part = slice(sample, sample + 1)
        alone = affine.apply(image[part], label[part], affine.draw([seed]))
        assert torch.equal(alone[0][0], together[0][sample])
        assert torch.equal(alone[1][0], together[1][sample])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_shapes_types_and_inputs_are_kept(dtype):
    image, label = _batch(dtype=dtype)
    kept = image.clone(), label.clone()
    affine = build_augmentation("affine")
    warped, warped_label = affine.apply(image, label, affine.draw(range(4)))
    assert (warped.shape, warped.dtype) == (image.shape, torch.float32)
    assert (warped_label.shape, warped_label.dtype) == (label.shape, dtype)
    assert torch.equal(image, kept[0]) and torch.equal(label, kept[1])
    # A view with another stride, as channels-last loaders give, is the same image.
    again = affine.apply(image.to(memory_format=torch.channels_last), label, affine.draw(range(4)))
    assert torch.equal(again[0], warped)


def test_values_stay_in_range_and_labels_in_their_set():
    image, label = _batch()
    label[label == 3] = 200
    affine = build_augmentation("affine")
    warped, warped_label = affine.apply(image, label, affine.draw(range(4)))
    assert warped.min() >= image.min() and warped.max() <= image.max()
    assert set(warped_label.unique().tolist()) <= set(label.unique().tolist())


def test_draws_fill_the_ranges_of_the_paper():
    drawn = build_augmentation("affine").draw(range(20_000))
    angle = drawn.angle_rad.rad2deg()
    for values, low, high in (
        (angle, -10, 10),
        *((zoom, 0.75, 1.25) for zoom in drawn.zoom.T),
        *((shift, -0.2, 0.2) for shift in drawn.shift.T),
    ):
        width = high - low
        assert low <= values.min() < low + 0.01 * width
        assert high - 0.01 * width < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.01 * width)
        assert values.std().item() == pytest.approx(width / math.sqrt(12), rel=0.02)
    everything = torch.stack([angle, *drawn.zoom.T, *drawn.shift.T])
    correlation = torch.corrcoef(everything) - torch.eye(7)
    assert correlation.abs().max() < 0.03


def test_a_samples_draw_depends_on_its_seed_alone():
    affine = build_augmentation("affine")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()

    def stacked(seeds):
        drawn = affine.draw(seeds)
        return torch.cat([drawn.angle_rad[:, None], drawn.zoom, drawn.shift], dim=1)

    drawn = stacked([1, 2**63, 3])
    assert torch.equal(drawn[[1]], stacked([2**63]))
    assert torch.equal(drawn[[2, 0]], stacked([3, 1]))
    assert len({tuple(row.tolist()) for row in drawn}) == 3
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_what_does_not_fit_is_refused():
    affine = build_augmentation("affine")
    image, label = _batch()
    with pytest.raises(GeometryError, match="do not fit"):
        affine.apply(image, label[:, 1:], affine.draw(range(4)))
    with pytest.raises(GeometryError, match="3 drawn samples"):
        affine.apply(image, label, affine.draw(range(3)))


@pytest.mark.parametrize(
    "options", [{"rotation_deg": -1.0}, {"zoom": 1.0}, {"zoom": -0.1}, {"shift": 2.0}]
)
def test_refused_magnitudes(options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        build_augmentation("affine", **options)
