"""The phantom against what anatomy and radiology books say, and against scipy's components."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy import ndimage

from leanseg.datasets.phantom import LABELS, PhantomOptions, make_phantom
from leanseg.errors import RecipeError

SEEDS = range(3)
ORGANS = [name for name in LABELS if name != "pancreatic_tumour"]


@cache
def whole(seed: int, tumour_mm: float = 0.0, orientation: str = "LPS"):
    """A scan from the pelvis to the heart, without noise."""
    options = PhantomOptions(
        size=96,
        slices=60,
        slice_mm=4.5,
        tumour_mm=tumour_mm,
        orientation=orientation,
        noise_hu=0.0,
    )
    return make_phantom(np.random.default_rng(seed), options)


def small(seed, **options):
    return make_phantom(np.random.default_rng(seed), PhantomOptions(size=64, slices=20, **options))


def millilitres(volume, mask):
    return mask.sum() * abs(np.linalg.det(volume.affine[:3, :3])) / 1000


def centre_of(volume, mask):
    """Centre in RAS+ mm."""
    return apply_affine(volume.affine, np.argwhere(mask).mean(axis=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_types_and_shapes(seed):
    image, label = whole(seed)
    assert image.array.dtype == np.int16
    assert label.array.dtype == np.uint8
    assert image.array.shape == label.array.shape == (96, 96, 60)
    np.testing.assert_array_equal(image.affine, label.affine)
    assert set(np.unique(label.array)) == {0, *(LABELS[name] for name in ORGANS)}
    assert image.array.min() >= -1024


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_are_in_one_piece(seed):
    label = whole(seed)[1].array
    for organ in ORGANS:
        assert ndimage.label(label == LABELS[organ])[1] == 1, organ


@pytest.mark.parametrize("diameter", [8.0, 38.0])
def test_pancreas_with_tumour_is_in_one_piece(diameter):
    label = whole(3, diameter)[1].array
    assert (label == LABELS["pancreatic_tumour"]).any()
    assert ndimage.label(label >= LABELS["pancreas"])[1] == 1


# Normal volumes in ml, generously: of adults of different builds.
PLAUSIBLE_ML = {
    "liver": (800, 2500),
    "spleen": (60, 450),
    "right_kidney": (80, 260),
    "left_kidney": (80, 260),
    "stomach": (80, 900),
    "aorta": (40, 200),
    "pancreas": (30, 140),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_volumes_are_plausible(seed):
    _, label = whole(seed)
    for organ, (low, high) in PLAUSIBLE_ML.items():
        assert low <= millilitres(label, label.array == LABELS[organ]) <= high, organ


# Mean grey values in HU, away from the surface, where no neighbour blurs in.
GREY_HU = {
    "liver": (95, 130),
    "spleen": (105, 135),
    "right_kidney": (135, 200),
    "left_kidney": (135, 200),
    "aorta": (140, 205),
    "pancreas": (70, 115),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_grey_values_are_those_of_contrast_enhanced_ct(seed):
    image, label = whole(seed)
    for organ, (low, high) in GREY_HU.items():
        inside = ndimage.binary_erosion(label.array == LABELS[organ])
        assert inside.any()
        assert low <= np.median(image.array[inside]) <= high, organ


@pytest.mark.parametrize("seed", SEEDS)
def test_stomach_holds_air_above_fluid(seed):
    image, label = whole(seed)
    lumen = ndimage.binary_erosion(label.array == LABELS["stomach"])
    air = lumen & (image.array < -500)
    fluid = lumen & (image.array > -50) & (image.array < 80)
    assert air.any()
    assert fluid.any()
    # The patient lies on the back, so air rises to the front: R-A-S world, second axis.
    assert centre_of(image, air)[1] > centre_of(image, fluid)[1] + 5


def test_organs_are_in_other_places_in_every_patient():
    centres = [
        centre_of(label, label.array == 7) - centre_of(image, image.array > -300)
        for image, label in map(whole, SEEDS)
    ]
    assert np.ptp(centres, axis=0).max() > 4


def test_no_threshold_finds_the_pancreas():
    for seed in SEEDS:
        image, label = whole(seed)
        pancreas = label.array == LABELS["pancreas"]
        low, high = np.percentile(image.array[pancreas], [10, 90])
        inside = (image.array >= low) & (image.array <= high)
        assert pancreas.sum() * 20 < inside.sum()


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAS", "RPS"])
def test_anatomy_stays_in_place_in_every_orientation(orientation):
    image, label = whole(1, 0.0, orientation)
    assert image.orientation == label.orientation == orientation
    centres = {name: centre_of(label, label.array == LABELS[name]) for name in ORGANS}
    body = centre_of(image, image.array > -300)
    places = apply_affine(image.affine, np.argwhere(image.array > 300))
    # Ribs reach round to the front; near the midline there is only the spine.
    bone = places[np.abs(places[:, 0] - body[0]) < 30].mean(axis=0)
    assert centres["liver"][0] > body[0] + 20
    assert centres["spleen"][0] < body[0] - 40
    assert centres["right_kidney"][0] > body[0] > centres["left_kidney"][0]
    assert bone[1] < centres["pancreas"][1]
    assert centres["aorta"][1] < centres["pancreas"][1] < centres["stomach"][1] + 30
    assert centres["liver"][2] > centres["right_kidney"][2]
    body = [ndimage.binary_fill_holes(s) for s in np.moveaxis(image.array > -300, 2, 0)]
    lung = (image.array < -700) & (image.array > -950) & np.stack(body, axis=2)
    assert centre_of(image, lung)[2] > centres["liver"][2]


def test_orientations_hold_the_same_scan():
    reference, reference_label = whole(1)
    for orientation in ("RAS", "LAS", "RPS"):
        image, label = whole(1, 0.0, orientation)
        flips = [axis for axis in range(3) if orientation[axis] != "LPS"[axis]]
        np.testing.assert_array_equal(np.flip(image.array, flips), reference.array)
        np.testing.assert_array_equal(np.flip(label.array, flips), reference_label.array)
        corner = apply_affine(image.affine, [0, 0, 0])
        index = [reference.shape[axis] - 1 if axis in flips else 0 for axis in range(3)]
        np.testing.assert_allclose(corner, apply_affine(reference.affine, index), atol=1e-9)


@pytest.mark.parametrize(("seed", "diameter"), [(0, 40.0), (4, 25.0), (5, 12.0)])
def test_tumour_has_the_diameter_asked_for(seed, diameter):
    image, label = make_phantom(
        np.random.default_rng(seed),
        PhantomOptions(size=192, slices=50, slice_mm=2.2, tumour_mm=diameter, noise_hu=0),
    )
    tumour = label.array == LABELS["pancreatic_tumour"]
    equivalent = (6 / np.pi * millilitres(label, tumour) * 1000) ** (1 / 3)
    assert equivalent == pytest.approx(diameter, rel=0.15)
    gland = label.array == LABELS["pancreas"]
    inside = ndimage.binary_erosion(tumour, iterations=2)
    assert image.array[inside].mean() < np.median(image.array[gland]) - 15


def test_smallest_tumour_is_there_and_none_is_none():
    fine = PhantomOptions(size=160, slices=40, slice_mm=2.5, tumour_mm=5)
    label = make_phantom(np.random.default_rng(2), fine)[1].array
    assert (label == LABELS["pancreatic_tumour"]).any()
    assert not (small(2, slice_mm=4.5, tumour_mm=0)[1].array == LABELS["pancreatic_tumour"]).any()


def test_same_seed_same_scan_other_seed_other_scan():
    first, again, other = small(5), small(5), small(6)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.array, b.array)
        np.testing.assert_array_equal(a.affine, b.affine)
    assert not np.array_equal(first[1].array, other[1].array)


def test_anatomy_does_not_depend_on_the_grid():
    coarse = small(7, slice_mm=4.0, orientation="LPS")[1]
    options = PhantomOptions(size=192, slices=60, slice_mm=4 / 3, orientation="LPS")
    fine = make_phantom(np.random.default_rng(7), options)[1]
    # Voxel n of the coarse grid is voxel 3 n + 1 of the fine one.
    at_coarse = fine.array[1::3, 1::3, 1::3]
    np.testing.assert_allclose(
        apply_affine(fine.affine, [1, 1, 1]), apply_affine(coarse.affine, [0, 0, 0]), atol=1e-3
    )
    # Only slivers that are dropped on one grid may differ.
    assert (at_coarse != coarse.array).mean() < 0.002


def test_noise_has_the_size_asked_for():
    quiet, label = small(8, slice_mm=5.0, noise_hu=0.0, orientation="LPS")
    noisy, _ = small(8, slice_mm=5.0, noise_hu=20.0, orientation="LPS")
    difference = noisy.array.astype(float) - quiet.array
    middle = label.array == LABELS["aorta"]
    assert difference[middle].std() == pytest.approx(20, rel=0.15)
    assert abs(difference[middle].mean()) < 3
    assert difference[:4, :4].std() < 14


@settings(max_examples=5, deadline=None)
@given(
    size=st.integers(64, 80),
    slices=st.integers(20, 30),
    slice_mm=st.floats(1, 5),
    orientation=st.sampled_from(["LPS", "RAS", "LAS", "RPS"]),
    seed=st.integers(0, 2**31),
)
def test_options_are_honoured(size, slices, slice_mm, orientation, seed):
    options = PhantomOptions(size, slices, slice_mm, orientation=orientation)
    image, label = make_phantom(np.random.default_rng(seed), options)
    assert image.array.shape == label.array.shape == (size, size, slices)
    assert image.spacing_mm[2] == pytest.approx(slice_mm)
    assert image.orientation == orientation
    assert label.array.max() <= 8
    assert (label.array == LABELS["pancreas"]).any()


def test_drawn_scans_vary_within_the_stated_ranges():
    scans = [make_phantom(np.random.default_rng(s), PhantomOptions(size=64)) for s in range(10)]
    for image, _ in scans:
        assert 20 <= image.shape[2] <= 120
        assert 1 <= image.spacing_mm[2] <= 5
        assert 320 / 64 - 1e-6 <= image.spacing_mm[0] <= 450 / 64 + 1e-6
    assert len({image.shape[2] for image, _ in scans}) > 4
    assert len({image.orientation for image, _ in scans}) > 1
    with_tumour = sum((label.array == 8).any() for _, label in scans)
    assert 0 < with_tumour < 10


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("size", 1024),
        ("slices", 10),
        ("slice_mm", 0.5),
        ("tumour_mm", 3.0),
        ("tumour_mm", 50.0),
        ("noise_hu", -1.0),
        ("noise_hu", float("nan")),
        ("orientation", "SPL"),
    ],
)
def test_options_out_of_range_are_named(option, value):
    with pytest.raises(RecipeError, match=rf"phantom option {option} is {value!r}; choose"):
        PhantomOptions(**{option: value})
