from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast
from scipy import ndimage

from leanseg.augmentation import build_augmentation


def _image(shape, channels=2, seed=0):
    image = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, channels, *shape)))
    return image.float() * torch.tensor([1.0, 30.0])[:channels].reshape(-1, *[1] * len(shape))


def _values(name, image, seeds=(0,), **options):
    augmentation = build_augmentation(name, **options)
    label = torch.zeros(len(image), *image.shape[2:], dtype=torch.long)
    return augmentation.apply(image, label, augmentation.draw(seeds))[0]


@pytest.mark.parametrize("shape", [(20, 31), (9, 12, 6)])
def test_blur_equals_scipy_channel_by_channel(shape):
    image = _image(shape)
    blurred = _values("blur", image, sigma=[0.8, 0.8], probability=1.0, channel_probability=1.0)
    for channel in range(2):
        expected = ndimage.gaussian_filter(image[0, channel].double(), 0.8, mode="nearest")
        np.testing.assert_allclose(blurred[0, channel], expected, atol=1e-4)


def test_blur_draws_a_sigma_for_each_channel_and_axis():
    """The variance of a blurred point, along each axis, is sigma squared."""
    n, size = 300, 17
    image = torch.zeros(n, 2, size, size)
    image[:, :, size // 2, size // 2] = 1.0
    blurred = _values(
        "blur", image, range(n), sigma=[0.5, 2.0], probability=1.0, channel_probability=0.5
    )
    steps = (torch.arange(size) - size // 2.0).square()
    sigmas = torch.stack([(blurred.sum(dim=3 - k) @ steps).sqrt() for k in (0, 1)])
    chosen = sigmas[0] > 0
    assert chosen.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert chosen[:, 0].float().mul(chosen[:, 1]).mean().item() == pytest.approx(0.25, abs=0.1)
    rows, columns = sigmas[:, chosen]
    for each in (rows, columns):
        assert 0.45 < each.min() < 0.6 and 1.85 < each.max() < 2.01
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.25


@pytest.mark.parametrize(("size", "coarse"), [(8, 4), (9, 6), (10, 3)])
def test_low_resolution_by_hand(size, coarse):
    image = _image((size, size))
    lowered = _values(
        "low-resolution", image, scale=[coarse / size] * 2, probability=1.0,
        channel_probability=1.0,
    )  # fmt: skip
    sources = np.floor((np.arange(coarse) + 0.5) * size / coarse).astype(int)
    places = (np.arange(size) + 0.5) * coarse / size - 0.5
    back = np.stack([np.interp(places, np.arange(coarse), row) for row in np.eye(coarse)], 1)
    for channel in range(2):
        kept = image[0, channel].double().numpy()[np.ix_(sources, sources)]
        np.testing.assert_allclose(lowered[0, channel], back @ kept @ back.T, atol=1e-4)


def test_noise_has_the_sd_that_was_drawn():
    n = 400
    image = _image((40, 40)).expand(n, -1, -1, -1)
    noise = _values("noise", image, range(n), sd=0.5, probability=1.0) - image
    shares = noise.std(dim=(2, 3)) / image.std(dim=(2, 3))
    assert shares.min() < 0.02 and 0.47 < shares.max() < 0.53
    assert shares.mean().item() == pytest.approx(0.25, abs=0.03)
    assert abs(np.corrcoef(shares.T)[0, 1]) < 0.2  # each channel has its own
    scored = (noise / noise.std(dim=(2, 3), keepdim=True)).double()
    assert abs(scored.mean().item()) < 0.01
    assert (scored**4).mean().item() == pytest.approx(3, abs=0.05)  # of a Gaussian
    assert abs(np.corrcoef(scored[0, 0].flatten(), scored[1, 0].flatten())[0, 1]) < 0.1


def test_brightness_draws_half_of_its_factors_below_one():
    n = 3000
    factors = _values(
        "brightness", torch.ones(n, 2, 1, 1), range(n), factors=[0.5, 3.0], probability=1.0
    ).flatten()
    below = factors[factors < 1]
    assert len(below) / len(factors) == pytest.approx(0.5, abs=0.03)
    assert 0.5 <= below.min() < 0.51 and below.mean().item() == pytest.approx(0.75, abs=0.01)
    above = factors[factors >= 1]
    assert 2.97 < above.max() <= 3.0 and above.mean().item() == pytest.approx(2, abs=0.05)
    darker = _values(
        "brightness", torch.ones(50, 1, 2, 2), range(50), factors=[0.3, 0.6], probability=1.0
    )
    assert darker.min() >= 0.3 and darker.max() <= 0.6


@pytest.mark.parametrize("stretch", [0.6, 1.7])
def test_contrast_by_hand(stretch):
    image = _image((12, 13))
    stretched = _values("contrast", image, factors=[stretch] * 2, probability=1.0)
    for channel in range(2):
        before = image[0, channel].double().numpy()
        expected = (before - before.mean()) * stretch + before.mean()
        expected = expected.clip(before.min(), before.max())
        np.testing.assert_allclose(stretched[0, channel], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("power", [0.7, 1.5])
def test_gamma_equals_monai(power, inverted):
    image = _image((12, 13, 5))
    raised = _values(
        "gamma", image, powers=[power, power], probability=float(not inverted),
        inverted_probability=float(inverted),
    )  # fmt: skip
    monai = AdjustContrast(power, invert_image=inverted, retain_stats=True)
    for channel in range(2):
        expected = torch.as_tensor(monai(image[0, channel]))
        torch.testing.assert_close(raised[0, channel], expected, rtol=1e-4, atol=1e-4)
    axes = (2, 3, 4)
    for kept in ("mean", "std"):
        now, before = getattr(raised, kept)(axes), getattr(image, kept)(axes)
        torch.testing.assert_close(now, before, rtol=1e-4, atol=1e-4)


def test_gamma_of_both_kinds_is_inverted_first():
    image = _image((12, 13), channels=1)
    raised = _values("gamma", image, powers=[1.5, 1.5], probability=1.0, inverted_probability=1.0)
    expected = image[0, 0]
    for inverted in (True, False):
        monai = AdjustContrast(1.5, invert_image=inverted, retain_stats=True)
        expected = torch.as_tensor(monai(expected))
    torch.testing.assert_close(raised[0, 0], expected, rtol=1e-4, atol=1e-4)


def test_gamma_of_power_one_changes_nothing_but_roundings():
    image = _image((12, 13))
    raised = _values("gamma", image, powers=[1.0, 1.0], probability=1.0, inverted_probability=1.0)
    torch.testing.assert_close(raised, image, rtol=1e-5, atol=1e-4)


def test_gamma_shares():
    n = 3000
    image = torch.tensor([0.0, 0.3, 1.0, 0.1]).reshape(1, 1, 2, 2).expand(n, -1, -1, -1)
    changed = (_values("gamma", image, range(n)) != image).flatten(1).any(dim=1)
    assert changed.float().mean().item() == pytest.approx(1 - 0.7 * 0.9, abs=0.03)


@pytest.mark.parametrize("name", ["noise", "contrast", "gamma", "blur", "low-resolution"])
def test_a_constant_image_stays_constant(name):
    image = torch.full((3, 1, 6, 7), 2.5)
    options = {"probability": 1.0}
    torch.testing.assert_close(_values(name, image, range(3), **options), image)
