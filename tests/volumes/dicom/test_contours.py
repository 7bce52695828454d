"""Contours of masks and masks of contours, against winding numbers and matplotlib."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as Polygon
from scipy import ndimage

from leanseg.volumes.dicom.contours import INSET_VOXELS, fill, trace, united

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def winding_numbers(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How often a contour goes around each voxel centre, by the sum of angles."""
    centres = np.argwhere(np.ones(shape))[:, None].astype(float)
    start, end = points[None] - centres, np.roll(points, -1, axis=0)[None] - centres
    cross = start[..., 0] * end[..., 1] - start[..., 1] * end[..., 0]
    turn = np.arctan2(cross, (start * end).sum(axis=-1)).sum(axis=1)
    return np.rint(turn / (2 * np.pi)).astype(int).reshape(shape)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_every_rule_of_filling_gives_the_mask(mask):
    contours = trace(mask)
    np.testing.assert_array_equal(fill(contours, mask.shape), mask)
    around = [winding_numbers(points, mask.shape) for points in contours]
    # Once around each voxel of its own part, never around a hole: union, non-zero and even-odd
    # rules agree.
    assert all(set(np.unique(number)) <= {0, 1} for number in around)
    total = sum(around, np.zeros(mask.shape, int))
    np.testing.assert_array_equal(total, mask)


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_one_contour_for_each_part_with_its_area(mask):
    contours = trace(mask)
    parts, count = ndimage.label(mask)
    assert len(contours) == count
    for points in contours:
        i, j = points.T
        area = (i * np.roll(j, -1) - np.roll(i, -1) * j).sum() / 2
        voxels = max((parts == n).sum() for n in range(1, count + 1) if _first(parts, n, points))
        assert area == pytest.approx(voxels, abs=4 * INSET_VOXELS * voxels)


def _first(parts, number, points) -> bool:
    i, j = np.rint(points[0]).astype(int)
    return parts[i, j] == number


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_lines_keep_clear_of_voxel_centres_and_round_into_the_mask(mask):
    for points in trace(mask):
        assert (np.abs(points - np.rint(points)) > 0.4).any(axis=1).all()
        start, end = points, np.roll(points, -1, axis=0)
        moves = np.abs(end - start)
        assert ((moves == 0) | (moves > 0)).all()
        assert (moves.min(axis=1) < 1e-9).all()  # along the grid, keyholes too
        assert mask[tuple(np.rint(points).astype(int).T)].all()


def test_contours_of_corner_neighbours_do_not_touch():
    first, second = trace(np.eye(2, dtype=bool))
    apart = np.linalg.norm(first[:, None] - second[None], axis=-1)
    assert apart.min() == pytest.approx(np.sqrt(8) * INSET_VOXELS)


def test_a_ring_by_hand():
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    (points,) = trace(mask)
    e = INSET_VOXELS
    outer = {(-0.5 + e, -0.5 + e), (2.5 - e, -0.5 + e), (2.5 - e, 2.5 - e), (-0.5 + e, 2.5 - e)}
    hole = {(0.5 - e, 0.5 - e), (1.5 + e, 0.5 - e), (1.5 + e, 1.5 + e), (0.5 - e, 1.5 + e)}
    keyhole = {(0.5 - e, -0.5 + e)}
    rounded = [tuple(point) for point in np.round(points, 9)]
    expected = {tuple(np.round(p, 9)) for p in outer | hole | keyhole}
    assert set(rounded) == expected
    assert len(rounded) == 11  # keyhole end and start of the hole twice
    assert not fill([points], (3, 3))[1, 1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-3, 14), st.floats(-3, 14)).map(lambda p: (p[0] + 1e-4, p[1] + 1e-4)),
        min_size=3,
        max_size=9,
    )
)
def test_filling_any_polygon_agrees_with_even_odd_ray_casting(points):
    points, shape = np.array(points), (11, 12)
    start, end = points, np.roll(points, -1, axis=0)
    expected = np.zeros(shape, bool)
    clear = np.ones(shape, bool)
    for i, j in np.argwhere(np.ones(shape)):
        for (x0, y0), (x1, y1) in zip(start, end, strict=True):
            if (y0 > j) != (y1 > j):
                expected[i, j] ^= i < x0 + (j - y0) / (y1 - y0) * (x1 - x0)
            along = np.array([x1 - x0, y1 - y0])
            length = max(along @ along, 1e-30)
            part = np.clip(((i - x0) * along[0] + (j - y0) * along[1]) / length, 0, 1)
            if np.hypot(x0 + part * along[0] - i, y0 + part * along[1] - j) < 2e-3:
                clear[i, j] = False
    np.testing.assert_array_equal(fill([points], shape)[clear], expected[clear])


def test_a_convex_polygon_against_matplotlib():
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.c_[20 + 13.3 * np.cos(angles), 17 + 9.1 * np.sin(angles)]
    centres = np.argwhere(np.ones((40, 35)))
    expected = Polygon(points).contains_points(centres).reshape(40, 35)
    np.testing.assert_array_equal(fill([points], (40, 35)), expected)


def test_a_contour_inside_another_cuts_a_hole():
    outer = np.array([(0.5, 0.5), (8.5, 0.5), (8.5, 8.5), (0.5, 8.5)])
    inner = np.array([(2.5, 2.5), (2.5, 4.5), (4.5, 4.5), (4.5, 2.5)])
    expected = np.zeros((10, 10), bool)
    expected[1:9, 1:9] = True
    expected[3:5, 3:5] = False
    for contours in ([outer, inner], [inner[::-1], outer]):
        np.testing.assert_array_equal(fill(contours, (10, 10)), expected)


def test_centres_on_a_contour_belong_to_it():
    """Contours through the centres of the outermost voxels, as some programs draw them."""
    expected = np.zeros((8, 8), bool)
    expected[1:6, 2:5] = True
    square = np.array([(1, 2), (5, 2), (5, 4), (1, 4)], float)
    np.testing.assert_array_equal(fill([square], (8, 8)), expected)
    diamond = fill([np.array([(3, 0), (6, 3), (3, 6), (0, 3)], float)], (7, 7))
    i, j = np.indices((7, 7))
    np.testing.assert_array_equal(diamond, np.abs(i - 3) + np.abs(j - 3) <= 3)


def test_nothing_to_trace_or_fill():
    assert trace(np.zeros((4, 5), bool)) == []
    assert not fill([], (4, 5)).any()
    assert not fill([np.array([(-9.0, -9.0), (-5.0, -9.0), (-5.0, -2.0)])], (4, 5)).any()
    far = np.array([(-9.0, -9.0), (99.0, -9.0), (99.0, 99.0), (-9.0, 99.0)])
    assert fill([far], (4, 5)).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), blur=st.sampled_from([0.7, 1.2, 2.0]))
def test_holes_of_other_programs_are_found_however_often_contours_are_stored(seed, blur):
    """OpenCV draws through the centres of the outermost voxels, and holes as their own contours.

    A wall of one voxel would be the same contour twice.
    """
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.random((24, 26)), blur) > 0.49
    mask = ndimage.binary_opening(mask, np.ones((3, 3)))
    drawn, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    contours = [points[:, 0, ::-1].astype(float) for points in drawn if len(points) >= 3]
    repeated = [points for points in contours for _ in range(rng.integers(1, 4))]
    repeated = [repeated[n] for n in rng.permutation(len(repeated))]
    found, _ = united(repeated, mask.shape)
    np.testing.assert_array_equal(found, fill(contours, mask.shape))
