from __future__ import annotations

import io
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy import ndimage

from leanseg.errors import GeometryError
from leanseg.reports.overlay import (
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    Scene,
    SliceView,
    choose_slices,
    draw_slice,
    grey_window,
    label_colours,
    preview_png,
    slice_png,
)
from leanseg.volumes import Volume

SHAPE, SPACING = (20, 16, 10), (1.0, 1.5, 4.0)
ORIENTATIONS = [
    "".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)
]


def _stored(array: np.ndarray, codes: str) -> Volume:
    """`array` is given in LPS order; nibabel, not our code, brings it to `codes`."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (30.0, 20.0, -50.0)
    image = nib.Nifti1Image(array, affine)
    start = nib.orientations.axcodes2ornt(("L", "P", "S"))
    moved = image.as_reoriented(
        nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(tuple(codes)))
    )
    assert "".join(nib.aff2axcodes(moved.affine)) == codes
    return Volume(np.asarray(moved.dataobj), moved.affine)


def _block(*bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[tuple(slice(*pair) for pair in bounds)] = 1
    return mask


def _picture(scene: Scene, view: SliceView, **options) -> np.ndarray:
    png = slice_png(scene, view, labels={"organ": 1}, **options)
    return imread(io.BytesIO(png), format="png")[..., :3]


def _choose(reference=None, prediction=None):
    return choose_slices(Scene(Volume(np.zeros(SHAPE), np.eye(4)), reference, prediction))


def _where(picture: np.ndarray, colour: str) -> np.ndarray:
    return np.abs(picture - to_rgb(colour)).max(axis=2) < 0.12


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_right_anterior_superior_corner_is_drawn_at_the_upper_left(codes):
    # Bright, and labelled, in the patient's right-anterior-superior corner alone.
    corner = _block((0, 4), (0, 4), (8, 10))
    image = _stored(corner.astype(np.int16) * 1000, codes)
    scene = Scene.from_volumes(image, _stored(corner, codes), None)
    for view in (SliceView("axial", 9), SliceView("coronal", 1)):
        picture = _picture(scene, view, window=(0, 1000))
        rows, columns = picture.shape[:2]
        for marked in (picture.min(axis=2) > 0.9, _where(picture, REFERENCE_COLOUR)):
            # The letters at the middle of the sides are white as well.
            marked[:, 2 * columns // 5 : 3 * columns // 5] = False
            marked[2 * rows // 5 : 3 * rows // 5] = False
            row, column = np.argwhere(marked).mean(axis=0)
            assert row < 0.4 * rows
            assert column < 0.4 * columns


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAI", "SRP", "AIR"])
def test_maps_stored_in_another_order_than_the_scan_are_matched_in_the_world(codes, rng):
    array = (rng.random(SHAPE) > 0.5).astype(np.uint8)
    image = _stored(array, "RAS")
    scene = Scene.from_volumes(image, _stored(array, codes), _stored(array, codes[::-1]))
    np.testing.assert_array_equal(scene.image.array, array)
    np.testing.assert_array_equal(scene.reference, array)
    np.testing.assert_array_equal(scene.prediction, array)


def test_a_map_on_another_grid_is_an_error():
    mask = _block((4, 12), (4, 8), (2, 6))
    image = _stored(mask, "LPS")
    with pytest.raises(GeometryError):
        Scene.from_volumes(image, Volume(mask[::2, ::2, ::2], image.affine))


def test_contours_run_where_the_label_ends():
    reference = _block((5, 12), (3, 9), (2, 7))
    predicted = ndimage.shift(reference, (4, 3, 1), order=0)
    image = _stored(np.zeros(SHAPE, np.int16), "LPS")
    scene = Scene.from_volumes(image, _stored(reference, "RAS"), _stored(predicted, "PIL"))
    for view, mask_of in (
        (SliceView("axial", 4), lambda mask: mask[:, :, 4].T),
        (SliceView("coronal", 7), lambda mask: mask[:, 7, ::-1].T),
        (SliceView("sagittal", 10), lambda mask: mask[10, :, ::-1].T),
    ):
        picture = _picture(scene, view)
        for mask, colour in ((reference, REFERENCE_COLOUR), (predicted, PREDICTION_COLOUR)):
            wanted = mask_of(mask) > 0
            rows, columns = picture.shape[:2]
            # The mask at the picture's own resolution, by a lookup of pixel centres.
            i = ((np.arange(rows) + 0.5) * wanted.shape[0] / rows).astype(int)
            j = ((np.arange(columns) + 0.5) * wanted.shape[1] / columns).astype(int)
            large = wanted[np.ix_(i, j)]
            edge = large ^ ndimage.binary_erosion(large)
            line = _where(picture, colour)
            assert line.any()
            from_edge = ndimage.distance_transform_edt(~edge)
            # Corners are cut, by less than half a voxel; everything else is on the edge.
            assert np.median(from_edge[line]) <= 2.5
            voxel = max(rows / wanted.shape[0], columns / wanted.shape[1])
            assert from_edge[line].max() <= 0.5 * voxel + 3


def test_every_part_of_the_reference_edge_has_its_line():
    reference = _block((5, 12), (3, 9), (2, 7))
    scene = Scene.from_volumes(_stored(reference, "LPS"), _stored(reference, "LPS"), None)
    picture = _picture(scene, SliceView("axial", 4), window=(0, 1))
    rows, columns = picture.shape[:2]
    large = np.kron(reference[:, :, 4].T, np.ones((rows // 16, columns // 20))) > 0
    edge = large ^ ndimage.binary_erosion(large)
    to_line = ndimage.distance_transform_edt(~_where(picture, REFERENCE_COLOUR))
    assert to_line[: large.shape[0], : large.shape[1]][edge].max() < 0.5 * columns / 20


def test_reference_is_solid_and_prediction_is_dashed():
    mask = _block((5, 12), (3, 9), (2, 7))
    scene = Scene.from_volumes(*[_stored(mask, "LPS")] * 3)
    axes = Figure().subplots()
    draw_slice(axes, scene, SliceView("axial", 4), labels={"organ": 1})
    reference, prediction = axes.collections
    assert reference.get_linestyles()[0][1] is None
    assert prediction.get_linestyles()[0][1] is not None
    np.testing.assert_allclose(reference.get_edgecolor()[0][:3], to_rgb(REFERENCE_COLOUR))
    np.testing.assert_allclose(prediction.get_edgecolor()[0][:3], to_rgb(PREDICTION_COLOUR))


def test_several_labels_have_a_colour_each():
    maps = _block((2, 6), (3, 9), (2, 7)) + 2 * _block((10, 16), (3, 9), (2, 7))
    scene = Scene.from_volumes(_stored(maps, "LPS"), _stored(maps, "LPS"), None)
    axes = Figure().subplots()
    draw_slice(axes, scene, SliceView("axial", 4), labels={"liver": 1, "spleen": 2})
    first, second = (tuple(one.get_edgecolor()[0]) for one in axes.collections)
    assert first != second


@pytest.mark.parametrize(
    ("plane", "height_mm", "width_mm"),
    [("axial", 16 * 1.5, 20 * 1.0), ("coronal", 10 * 4.0, 20 * 1.0), ("sagittal", 40.0, 24.0)],
)
def test_pictures_have_the_proportions_of_the_body(plane, height_mm, width_mm):
    scene = Scene.from_volumes(_stored(_block((0, 4)), "ASR"), None, None)
    rows, columns = _picture(scene, SliceView(plane, 4)).shape[:2]
    assert rows / columns == pytest.approx(height_mm / width_mm, rel=0.01)
    assert max(rows, columns) == pytest.approx(640, abs=1)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "IPR"])
def test_positions_are_world_coordinates(codes):
    scene = Scene.from_volumes(_stored(np.zeros(SHAPE, np.int16), codes), None, None)
    captions = [scene.caption(SliceView(*view)) for view in (("axial", 3), ("coronal", 2))]
    assert captions == ["axial, z = \N{MINUS SIGN}38.0 mm", "coronal, y = 17.0 mm"]
    view = SliceView("sagittal", 5, "largest disagreement")
    assert scene.caption(view) == "sagittal, x = 25.0 mm: largest disagreement"


def test_the_chosen_slices_are_the_largest_and_the_worst():
    reference = _block((2, 8), (2, 8), (1, 7))
    reference[2:12, 2:12, 3] = 1  # the largest area
    predicted = reference.copy()
    predicted[:, :, 5] = 1  # nowhere is more wrong
    largest, worst, coronal = _choose(reference, predicted)
    assert (largest.plane, largest.index) == ("axial", 3)
    assert (worst.plane, worst.index, worst.reason) == ("axial", 5, "largest disagreement")
    assert coronal.plane == "coronal"
    assert 2 <= coronal.index < 8


def test_one_slice_that_is_both_comes_once():
    reference = _block((2, 8), (2, 8), (4, 5))
    axial, coronal = _choose(reference, np.zeros_like(reference))
    assert (axial.index, coronal.plane) == (4, "coronal")
    assert "area" in axial.reason
    assert "disagreement" in axial.reason


def test_without_a_reference_the_prediction_decides():
    predicted = _block((2, 8), (2, 8), (6, 7))
    for reference in (None, np.zeros(SHAPE, np.uint8)):
        assert _choose(reference, predicted)[0].index == 6
    assert _choose(predicted, None)[0].index == 6


def test_two_empty_maps_show_the_middle():
    empty = np.zeros(SHAPE, np.uint8)
    axial, coronal = _choose(empty, empty)
    assert (axial.index, coronal.index) == (5, 8)


@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_chosen_slices_lie_in_the_scan_for_any_maps(shape, seed):
    rng = np.random.default_rng(seed)
    reference, predicted = rng.integers(0, 2, (2, *shape), dtype=np.uint8)
    scene = Scene(Volume(np.zeros(shape), np.eye(4)), reference, predicted)
    for view in choose_slices(scene):
        assert scene.pixels(reference, view).ndim == 2


def test_the_grey_window_ignores_empty_surroundings_and_survives_odd_scans():
    array = np.zeros((20, 20, 20), np.float32)
    array[5:15, 5:15, 5:15] = np.random.default_rng(0).normal(500, 10, (10, 10, 10))
    low, high = grey_window(Volume(array, np.eye(4)))
    assert 450 < low < high < 550
    for odd in (np.zeros((4, 4, 4)), np.full((4, 4, 4), 7.0), np.full((4, 4, 4), np.nan)):
        low, high = grey_window(Volume(odd, np.eye(4)))
        assert low < high


def test_what_is_ignored_is_neither_shown_nor_chosen():
    reference = _block((2, 6), (2, 6), (2, 4))
    predicted = _block((2, 6), (2, 6), (2, 4))
    reference[:, :, 5:] = 2
    predicted[:, :, 5:] = 1
    grid = np.eye(4)
    volumes = [Volume(each, grid) for each in (np.zeros(SHAPE), reference, predicted)]
    scene = Scene.from_volumes(*volumes, ignored=2)
    upright = Scene.from_volumes(volumes[0], Volume(_block((2, 6), (2, 6), (2, 4)), grid))
    np.testing.assert_array_equal(scene.reference, upright.reference)
    np.testing.assert_array_equal(scene.prediction, upright.reference)
    assert choose_slices(scene) == choose_slices(upright)


def test_a_preview_shows_three_planes_with_the_labels():
    codes = "SAR"
    labels = _block((3, 9), (4, 12), (2, 7)) + 2 * _block((12, 16), (5, 9), (6, 9))
    grey = _stored(np.full(SHAPE, 40, np.int16), codes)
    names = {"liver": (1, 2), "cyst": (2,)}
    options = {"window": (0, 100), "longest_side_px": 640}
    drawn = preview_png(grey, _stored(labels, codes), names, **options)
    picture = imread(io.BytesIO(drawn), format="png")[..., :3]
    # The planes are 20, 20 and 24 mm wide and 24, 40 and 40 mm high, in one scale.
    assert picture.shape[1] == 640
    is_grey = np.abs(picture - 0.4).max(axis=2) < 0.01
    widths = [is_grey[:, :200].any(axis=0).sum(), is_grey.any(axis=0).sum()]
    assert widths == pytest.approx([200, 640], abs=8)
    for _, colour, _ in label_colours({"liver": 1, "cyst": 2}):
        assert (np.abs(picture - to_rgb(colour)).max(axis=2) < 0.1).sum() > 50
    nothing = preview_png(grey, _stored(0 * labels, codes), names)
    assert nothing.startswith(b"\x89PNG")
