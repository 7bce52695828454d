"""Controlled changes: labels go where the image goes, and both stay where they are in the world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from leanseg.errors import LeansegError
from leanseg.evaluation.changes import FACTORS, Labelled, choose_factors
from leanseg.volumes import Volume, on_grid_of

OBLIQUE = np.array(
    [[-0.7, 0.05, 0.1, 90], [-0.04, -0.8, 0.2, 80], [0.03, 0.1, 2, -300], [0, 0, 0, 1]]
)
ANY_UNIT = choose_factors(None, hounsfield=False)


def scan(array, label=None, affine=OBLIQUE):
    label = np.zeros(array.shape[:3], np.uint8) if label is None else label
    return Labelled(Volume(array, affine), Volume(label, affine))


def change(name, value, given, seed=0, factors=FACTORS):
    return factors[name].change(given, value, np.random.default_rng(seed))


def world(volume):
    """RAS+ mm of every voxel, (i, j, k, 3)."""
    index = np.moveaxis(np.indices(volume.shape), 0, -1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


every_level = st.sampled_from(
    [(name, value) for name, each in FACTORS.items() for value in each.levels.values()]
)


@settings(max_examples=60, deadline=None)
@given(every_level, st.tuples(*[st.integers(1, 25)] * 3), st.integers(0, 2))
def test_labels_and_image_change_together(level, shape, n_channels):
    name, value = level
    label = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    array = 100.0 * label
    if n_channels:
        array = np.stack([array] * n_channels, axis=-1)
    for factors in (FACTORS, ANY_UNIT):
        # The levels' own names are the same in both; shares are small where HU are not.
        changed = change(name, value, scan(array, label), factors=factors)
        if changed is None:
            continue
        image, labels = changed
        assert image.shape == labels.shape
        assert image.array.shape[3:] == array.shape[3:]
        np.testing.assert_array_equal(image.affine, labels.affine)
        assert labels.array.dtype == np.uint8
        assert set(np.unique(labels.array)) <= set(np.unique(label)) | {0}
        if name in ("dropped", "border", "end", "orientation"):
            first = image.array[..., 0] if n_channels else image.array
            np.testing.assert_array_equal(first, 100 * labels.array)
        if name in ("offset", "scale", "noise"):
            np.testing.assert_array_equal(labels.array, label)


@pytest.mark.parametrize(
    ("name", "value"),
    [("border", 0.1), ("end", 0), ("end", 1), *[("orientation", way) for way in range(3)]],
)
def test_every_voxel_keeps_its_place(name, value):
    places = world(Volume(np.zeros((12, 10, 9)), OBLIQUE))
    image, _ = change(name, value, scan(places))
    np.testing.assert_allclose(image.array, world(image), atol=1e-9)


@pytest.mark.parametrize(("mm", "n"), [(4, 6), (1, 24), (8, 3), (2, 12)])
def test_slices_of_another_thickness(mm, n, rng):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    array = rng.normal(size=(3, 4, 12))
    image, label = change("thickness", mm, scan(array, np.ones((3, 4, 12), np.uint8), affine))
    assert image.shape == (3, 4, n)
    assert image.spacing_mm == (1, 1, mm)
    assert label.array.all()
    if mm >= 2:
        means = array.reshape(3, 4, n, -1).mean(-1)
        np.testing.assert_allclose(image.array, means, rtol=1e-5, atol=1e-6)
    # A ramp in the world stays one, but for half a slice at its ends.
    ramp, _ = change("thickness", mm, scan(world(Volume(array, OBLIQUE))))
    np.testing.assert_allclose(ramp.array[:, :, 1:-1], world(ramp)[:, :, 1:-1], atol=1e-3)


def test_slices_whose_number_is_no_multiple(rng):
    """10 slices of 2 mm as 7 of 2.86: the mean of all is kept, and the value is what it became."""
    given = scan(rng.normal(size=(2, 2, 10)), affine=np.diag([1.0, 1.0, 2.0, 1.0]))
    image, _ = change("thickness", 3, given)
    assert image.shape == (2, 2, 7)
    assert FACTORS["thickness"].value(image, "3 mm") == pytest.approx(20 / 7)
    assert FACTORS["thickness"].value(given.image) == 2


def test_dropped_slices():
    image, _ = change("dropped", 1 / 3, scan(np.arange(8.0).reshape(1, 1, 8)))
    assert image.array.ravel().tolist() == [0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize("degrees", [4, 8, 16])
def test_rotation_is_scipys_where_pixels_are_square(degrees, rng):
    array, label = rng.normal(size=(15, 12, 2)), rng.integers(0, 3, (15, 12, 2)).astype(np.uint8)
    image, labels = change("rotation", degrees, scan(array, label, np.eye(4)))
    options = {"reshape": False, "cval": array.astype(np.float32).min()}
    wanted = ndimage.rotate(array.astype(np.float32), degrees, order=1, **options)
    np.testing.assert_allclose(image.array, wanted, atol=1e-5)
    wanted = ndimage.rotate(label, degrees, order=0, reshape=False)
    np.testing.assert_array_equal(labels.array, wanted)


def test_rotation_is_in_mm():
    """A pixel of 1 x 3 mm, 3 mm along the first axis, lies 3 mm along the second as three."""
    label = np.zeros((9, 5, 1), np.uint8)
    label[4 + 3, 2] = 1
    _, labels = change("rotation", 90, scan(label * 1.0, label, np.diag([1.0, 3.0, 1.0, 1.0])))
    assert np.argwhere(labels.array).tolist() == [[3, 3, 0], [4, 3, 0], [5, 3, 0]]


def test_noise(rng):
    array = np.stack([rng.normal(0, 10, (20, 20, 20)), rng.normal(0, 1, (20, 20, 20))], axis=-1)
    first, again, other = (change("noise", 20, scan(array), seed).image for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.array, again.array)
    assert (first.array != other.array).all()
    assert (first.array - array).std() == pytest.approx(20, rel=0.02)
    np.testing.assert_array_equal(change("noise", 0, scan(array)).image.array, np.float32(array))
    shares = change("noise", 0.2, scan(array), factors=ANY_UNIT).image.array - array
    np.testing.assert_allclose(shares.std(axis=(0, 1, 2)), [2, 0.2], rtol=0.03)


def test_offset_and_scale_of_any_unit():
    array = np.stack([np.arange(101.0), 10 * np.arange(101.0)], axis=-1)[:, None, None]
    moved = change("offset", 0.05, scan(array), factors=ANY_UNIT).image.array - array
    np.testing.assert_allclose(moved[0, 0, 0], [0.05 * 98, 0.05 * 980], rtol=1e-4)
    np.testing.assert_allclose(
        change("scale", 1.1, scan(array)).image.array, 1.1 * array, rtol=1e-6
    )


def test_three_other_orientations():
    given = scan(np.arange(24.0).reshape(2, 3, 4))
    turned = [change("orientation", way, given).image for way in range(3)]
    codes = [one.orientation for one in (given.image, *turned)]
    assert len({*codes}) == 4
    for one in turned:
        np.testing.assert_array_equal(on_grid_of(given.image, one).array, given.image.array)


def test_what_is_too_small():
    for shape, wanted in (
        ((30, 30, 1), {"thickness", "dropped", "end"}),
        ((30, 30, 2), {"dropped", "end"}),
        ((2, 30, 30), {"border"}),
    ):
        given = scan(np.zeros(shape))
        found = {
            name
            for name, each in FACTORS.items()
            if all(change(name, value, given) is None for value in each.levels.values())
        }
        assert found == wanted


def test_factors_by_name():
    assert [*choose_factors(["noise", "end", "noise"], hounsfield=True)] == ["noise", "end"]
    assert ANY_UNIT["noise"].unit == "share of the SD"
    assert FACTORS["offset"].sides == ("below", "above")
    assert FACTORS["thickness"].sides == ("all",)
    assert FACTORS["end"].sides == ()
    with pytest.raises(LeansegError, match="factor 'blur' is not known; choose among thickness"):
        choose_factors(["blur"], hounsfield=True)
