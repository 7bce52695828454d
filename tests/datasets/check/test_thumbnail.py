"""Thumbnails show the patient as radiologists do, whatever the storage order."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.datasets.check.label import measure_labels
from leanseg.datasets.check.thumbnail import shrink
from leanseg.datasets.check.thumbnail import thumbnail as drawn
from leanseg.volumes import Volume, reorient

RAS = np.diag([2.0, 3.0, 4.0, 1.0])
RAS[:3, 3] = -40, 10, 100
WINDOW = (-1000, 1000)


def thumbnail(small, layers):
    return drawn(small, layers, measure_labels(layers))


def scan_and_label():
    """Bright at the right front on slice 6, a label at the left back on slices 2 to 6."""
    array = np.full((20, 16, 9), -1000, np.int16)
    array[-3:, -3:, 6] = 1000
    label = np.zeros(array.shape, np.uint8)
    label[:4, :3, 2:7] = 3
    return Volume(array, RAS), Volume(label, RAS)


@pytest.mark.parametrize("code", ["RAS", "LPS", "SAL", "PIR", "ILA"])
@pytest.mark.parametrize("label_code", ["RAS", "SPR"])
def test_right_is_left_and_front_is_up(code, label_code):
    scan, label = (volume for volume in scan_and_label())
    label.array[:, :, 2:6] = 0  # slice 6 alone
    scan, label = reorient(scan, code), reorient(label, label_code)
    picture = thumbnail(shrink(scan.array, scan.affine, WINDOW), [label])
    expected = np.zeros((16, 20), np.uint8)
    expected[:3, :3] = 255
    assert np.array_equal(picture.image.array[:, :, 0].T, expected)
    labels = np.zeros((16, 20), np.uint8)
    labels[-3:, -4:] = 3
    assert np.array_equal(picture.labels[:, :, 0].T, labels)
    assert picture.image.spacing_mm == (2, 3, 4)
    assert picture.image.affine[2, 3] == 100 + 6 * 4


@pytest.mark.parametrize("code", ["RAS", "LPI", "SAL"])
def test_the_slice_is_the_middle_of_the_largest_label(code):
    scan, label = scan_and_label()
    label.array[:, :, 2:6] = 0
    label.array[:4, :3, 3] = 3
    label.array[10:, 10:, :] = 1
    small = shrink(scan.array, scan.affine, WINDOW)
    picture = thumbnail(small, [reorient(label, code)])
    assert picture.image.affine[2, 3] == 100 + 4 * 4
    assert set(np.unique(picture.labels)) == {0, 1}


def test_a_scan_without_labels_shows_its_middle():
    scan, label = scan_and_label()
    small = shrink(scan.array, scan.affine, WINDOW)
    assert thumbnail(small, []).labels is None
    assert thumbnail(small, []).image.affine[2, 3] == 100 + 4 * 4
    empty = label.with_array(np.zeros_like(label.array))
    assert thumbnail(small, [empty]).image.affine[2, 3] == 100 + 4 * 4


def test_labels_on_another_grid_are_drawn_where_they_lie():
    scan, label = scan_and_label()
    moved = label.affine.copy()
    moved[0, 3] += 6  # three voxels to the right
    picture = thumbnail(shrink(scan.array, scan.affine, WINDOW), [Volume(label.array, moved)])
    columns = np.flatnonzero(picture.labels.any(axis=(1, 2)))
    assert columns.tolist() == [13, 14, 15, 16]


def test_large_scans_are_averaged_in_blocks(rng):
    array = rng.integers(-160, 240, (512, 300, 3)).astype(np.int16)
    small = shrink(array, RAS, (-160, 240))
    picture = thumbnail(small, [])
    assert picture.image.shape == (170, 100, 1)
    assert picture.image.spacing_mm == (6, 9, 4)
    lps = array[::-1, ::-1, 1][:510, :300].reshape(170, 3, 100, 3).mean(axis=(1, 3))
    assert np.abs((lps + 160) / 400 * 255 - picture.image.array[:, :, 0]).max() <= 0.51


def test_a_constant_or_infinite_scan_has_a_picture():
    for value in (5.0, np.nan, np.inf):
        array = np.full((4, 4, 2), value, np.float32)
        assert thumbnail(shrink(array, RAS, (value, value)), []).image.shape == (4, 4, 1)
