"""What every augmentation promises, in 2-D and 3-D."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.augmentation import AUGMENTATIONS, build_augmentation
from leanseg.errors import GeometryError, RecipeError

_ALWAYS = {"probability": 1.0, "channel_probability": 1.0}
# Options under which every sample changes ...
STRONG = {
    "affine": {},
    "affine-noise": {},
    "spatial": {"probability": 1.0, "shift": 0.1, "elastic": 3.0, "elastic_spacing": 8.0},
    "mirror": {"probability": 1.0},
    "noise": {"sd": 0.5, "probability": 1.0},
    "blur": _ALWAYS,
    "brightness": {"probability": 1.0},
    "contrast": {"probability": 1.0},
    "low-resolution": {**_ALWAYS, "scale": [0.4, 0.7]},
    "gamma": {"probability": 1.0, "inverted_probability": 1.0},
    "ctia": {"fraction": 1.0, "rotation_deg": 90.0, "shift_share": 1.0},
    "mia": {"fraction": 1.0, "elastic_sd": 1.0, "elastic_spacing": 8.0},
}
# ... and magnitudes that say: as it was.
ZERO = {
    "affine": {"rotation_deg": 0.0, "zoom": 0.0, "shift": 0.0},
    "affine-noise": {"sigma": 0.0},
    "spatial": {"probability": 1.0, "rotation_deg": 0.0, "zoom": [1.0, 1.0]},
    "mirror": {"probability": 1.0, "axes": []},
    "noise": {"sd": 0.0, "probability": 1.0},
    "blur": {**_ALWAYS, "sigma": [0.1, 0.1]},
    "brightness": {"factors": [1.0, 1.0], "probability": 1.0},
    "contrast": {"factors": [1.0, 1.0], "probability": 1.0},
    "low-resolution": {**_ALWAYS, "scale": [1.0, 1.0]},
    "gamma": {"probability": 0.0, "inverted_probability": 0.0},
    "ctia": {"fraction": 1.0, "rotation_deg": 0.0, "noise_sd": 0.0, "shift_share": 0.0},
    "mia": {
        "fraction": 1.0, "rotation_deg": 0.0, "tilt_deg": 0.0, "scale": [1.0, 1.0], "shear": 0.0,
        "elastic_sd": 0.0, "ends": 0.0, "slope": [1.0, 1.0],
    },
}  # fmt: skip
NEVER = {name: {"fraction": 0.0} for name in ("ctia", "mia")} | {
    "affine-noise": {"sigma": 0.0},
    "gamma": {"probability": 0.0, "inverted_probability": 0.0},
}
SHAPES = [(13, 18), (12, 9, 7)]
SPATIAL = ("affine", "affine-noise", "spatial", "ctia", "mia")


def _batch(shape, batch=4, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, *shape, generator=generator)
    label = torch.randint(-1, 4, (batch, *shape), generator=generator)
    return image, label


def _applied(augmentation, image, label, seeds):
    return augmentation.apply(image, label, augmentation.draw(seeds))


def test_every_augmentation_is_covered():
    assert set(STRONG) == set(ZERO) == set(AUGMENTATIONS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_zero_magnitude_is_the_identity_to_the_bit(name, shape):
    image, label = _batch(shape)
    after = _applied(build_augmentation(name, **ZERO[name]), image, label, range(4))
    assert torch.equal(after[0], image) and torch.equal(after[1], label)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_types_layout_and_inputs_are_kept(name, shape):
    image, label = _batch(shape)
    channels_last = [torch.channels_last, torch.channels_last_3d][len(shape) - 2]
    augmentation = build_augmentation(name, **STRONG[name])
    kept = image.clone(), label.clone()
    after = _applied(augmentation, image, label, range(4))
    assert (after[0].dtype, after[0].shape) == (torch.float32, image.shape)
    assert (after[1].dtype, after[1].shape) == (torch.int64, label.shape)
    assert torch.equal(image, kept[0]) and torch.equal(label, kept[1])
    assert all(not torch.equal(after[0][i], image[i]) for i in range(4))
    assert torch.isfinite(after[0]).all()
    # Ignored voxels stay ignored, and no class comes from nowhere.
    assert set(after[1].unique().tolist()) == set(label.unique().tolist())
    again = _applied(augmentation, image.to(memory_format=channels_last), label, range(4))
    torch.testing.assert_close(again[0], after[0], rtol=0, atol=1e-5)
    assert torch.equal(again[1], after[1])


@pytest.mark.parametrize("name", AUGMENTATIONS)
@settings(max_examples=6, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=4, unique=True),
    shape=st.sampled_from(SHAPES),
    data=st.data(),
)
def test_a_sample_does_not_depend_on_its_batch(name, seeds, shape, data):
    image, label = _batch(shape, batch=len(seeds))
    options = STRONG[name] if data.draw(st.booleans()) else {}
    augmentation = build_augmentation(name, **options)
    together = _applied(augmentation, image, label, seeds)
    order = data.draw(st.permutations(range(len(seeds))))
    chosen = order[: data.draw(st.integers(1, len(seeds)))]
    alone = _applied(augmentation, image[chosen], label[chosen], [seeds[i] for i in chosen])
    assert torch.equal(alone[0], together[0][chosen])
    assert torch.equal(alone[1], together[1][chosen])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_image_under_other_seeds_is_another(name):
    image, label = _batch((12, 9, 7), batch=1)
    augmentation = build_augmentation(name, **STRONG[name] | _random_mirror(name))
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    results = [_applied(augmentation, image, label, [seed])[0] for seed in range(40)]
    assert len({result.numpy().tobytes() for result in results}) > 6
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()


def _random_mirror(name):
    return {"probability": 0.5} if name == "mirror" else {}


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"affine"}))
def test_what_is_not_drawn_is_handed_on(name):
    """No copies: the very tensors come back where no sample was chosen."""
    image, label = _batch((6, 7))
    never = build_augmentation(name, **NEVER.get(name, {"probability": 0.0}))
    after = _applied(never, image, label, range(4))
    assert after[0] is image and after[1] is label


@pytest.mark.parametrize("name", ["noise", "blur", "brightness", "contrast", "low-resolution"])
def test_shares_of_nnunet_and_independence(name):
    expected = {
        "noise": 0.1, "blur": 0.2, "brightness": 0.15, "contrast": 0.15, "low-resolution": 0.25,
    }  # fmt: skip
    n = 8_000
    drawn = [each is not None for each in build_augmentation(name).draw(range(n))]
    deviation = np.sqrt(expected[name] * (1 - expected[name]) / n)
    assert np.mean(drawn) == pytest.approx(expected[name], abs=4 * deviation)
    # From the same seeds, another augmentation draws independently.
    other = "blur" if name == "noise" else "noise"
    others = [each is not None for each in build_augmentation(other).draw(range(n))]
    assert abs(np.corrcoef(drawn, others)[0, 1]) < 4 / np.sqrt(n)


def test_intensities_of_one_scale_or_another():
    """z-scored or in [0, 1]: the augmented image is the same but for the scale."""
    image, label = _batch((14, 15, 6))
    for name in ("noise", "blur", "contrast", "low-resolution", "gamma"):
        augmentation = build_augmentation(name, **STRONG[name])
        scored = _applied(augmentation, image, label, range(4))[0]
        unit = _applied(augmentation, 0.1 * image + 0.5, label, range(4))[0]
        torch.testing.assert_close((unit - 0.5) / 0.1, scored, rtol=0, atol=1e-4)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("name", SPATIAL)
def test_image_and_label_move_together(name, n):
    lines = [torch.linspace(-1, 1, 40 if n == 2 else 24) for _ in range(n)]
    radius = sum((line - 0.1) ** 2 for line in torch.meshgrid(*lines, indexing="ij"))
    label = (radius < 0.25).long()[None].expand(4, *radius.shape)
    augmentation = build_augmentation(name, **STRONG[name])
    image, moved = _applied(augmentation, label[:, None].float(), label, range(4))
    assert ((image[:, 0] > 0.5) != moved.bool()).float().mean() < 0.01
    assert (moved != label).float().mean() > 0.01  # it did move


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_does_not_fit_is_refused(name):
    augmentation = build_augmentation(name)
    image, label = _batch((6, 7))
    with pytest.raises(GeometryError, match="do not fit"):
        augmentation.apply(image, label[:, 1:], augmentation.draw(range(4)))
    with pytest.raises(GeometryError, match="3 drawn samples"):
        augmentation.apply(image, label, augmentation.draw(range(3)))
    with pytest.raises(GeometryError, match="2-D or 3-D"):
        augmentation.apply(image[..., 0], label[..., 0], augmentation.draw(range(4)))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("affine-noise", {"sigma": -0.1}, "'sigma' is -0.1"),
        ("spatial", {"rotation_deg": 200.0}, "'rotation_deg' is 200"),
        ("spatial", {"rotation_deg": [10.0, 10.0]}, "'rotation_deg'"),
        ("spatial", {"zoom": [1.4, 0.7]}, r"'zoom' is .* should be \[lowest, highest\]"),
        ("spatial", {"zoom": [0.0, 1.0]}, "'zoom'"),
        ("spatial", {"elastic": 13.0}, "'elastic' is 13 voxels .* fold beyond 12.8"),
        ("spatial", {"elastic_spacing": 0.01}, "'elastic_spacing' is 0.01"),
        ("mirror", {"axes": [3]}, "'axes'"),
        ("mirror", {"probability": 1.5}, "'probability' is 1.5"),
        ("noise", {"sd": float("inf")}, "'sd' is inf"),
        ("blur", {"sigma": [0.5]}, "'sigma'"),
        ("blur", {"sigma": [0.5, 1e9]}, "'sigma'"),
        ("brightness", {"factors": 1.2}, "'factors' is 1.2"),
        ("contrast", {"factors": [-1.0, 1.0]}, "'factors'"),
        ("low-resolution", {"scale": [0.5, 2.0]}, "'scale' is .* should not exceed 1"),
        ("gamma", {"inverted_probability": -1.0}, "'inverted_probability'"),
        ("gamma", {"gamma": 2.0}, "no option 'gamma'; its options are"),
    ],
)
def test_refused_options(name, options, said):
    with pytest.raises(RecipeError, match=said) as caught:
        build_augmentation(name, **options)
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_gpu_gives_the_same(name, shape):
    image, label = _batch(shape)
    augmentation = build_augmentation(name, **STRONG[name])
    there = _applied(augmentation, image.cuda(), label.cuda(), range(4))
    here = _applied(augmentation, image, label, range(4))
    assert there[0].is_cuda and there[1].is_cuda
    torch.testing.assert_close(there[0].cpu(), here[0], rtol=1e-4, atol=1e-4)
    assert (there[1].cpu() != here[1]).float().mean() < 0.01
