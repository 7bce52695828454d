"""Label parts laid over each other, and their volumes and centres, against scipy and numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from leanseg.datasets import LabelPart, VolumeSource
from leanseg.datasets.check.label import lay_over, measure_labels
from leanseg.volumes import Volume, reorient

AFFINE = np.array([[-1.5, 0.1, 0, 20], [-0.1, -2, 0.2, 7], [0, 0.1, 4, 30], [0, 0, 0, 1.0]])


def part(values=None, value=None):
    return LabelPart(VolumeSource(Path("a.nii.gz")), values, value)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.uint8, np.int16, np.float32, np.uint16]),
    highest=st.sampled_from([1, 7, 300]),
)
def test_volumes_and_centres(seed, dtype, highest):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        highest = min(highest, 255)
    array = (rng.integers(0, highest + 1, (6, 5, 4)) * rng.integers(0, 2, (6, 5, 4))).astype(dtype)
    layers: list[Volume] = []
    lay_over(layers, part(), Volume(array, AFFINE))
    found = {label.value: label for label in measure_labels(layers)}
    assert set(found) == set(np.unique(array)) - {0}
    for value, label in found.items():
        centre = ndimage.center_of_mass(array == value)
        assert label.voxels == (array == value).sum()
        assert label.centre_mm == pytest.approx(tuple((AFFINE @ [*centre, 1])[:3]))
        assert label.volume_ml == pytest.approx(
            label.voxels * abs(np.linalg.det(AFFINE[:3, :3])) / 1000
        )


def test_later_parts_lie_on_top_and_values_are_translated():
    first = np.zeros((2, 2, 3), np.uint8)
    first[0] = 7
    second = np.zeros((2, 2, 3), np.int16)
    second[:, 0] = 255
    layers: list[Volume] = []
    lay_over(layers, part({7: 1}), Volume(first, AFFINE))
    lay_over(layers, part(value=300), reorient(Volume(second, AFFINE), "SRA"))
    (layer,) = layers
    expected = np.zeros((2, 2, 3))
    expected[0] = 1
    expected[:, 0] = 300
    assert np.array_equal(layer.array, expected)
    assert layer.array.dtype == np.uint16


def test_parts_on_other_grids_are_layers_of_their_own():
    array = np.ones((2, 2, 3), np.uint8)
    moved = AFFINE.copy()
    moved[0, 3] += 5
    layers: list[Volume] = []
    for value, affine in ((1, AFFINE), (2, moved), (3, moved)):
        lay_over(layers, part(value=value), Volume(array.copy(), affine))
    assert [int(layer.array.max()) for layer in layers] == [1, 3]
    facts = measure_labels(layers)
    assert [(label.value, label.voxels) for label in facts] == [(1, 12), (3, 12)]
    assert facts[1].centre_mm[0] - facts[0].centre_mm[0] == pytest.approx(5)


def test_what_is_no_label_is_counted_and_left_out():
    array = np.zeros((2, 2, 3), np.float32)
    array[0, 0] = [1, 0.5, -2]
    array[1, 1] = [np.nan, np.inf, 70000]
    layers: list[Volume] = []
    faults = lay_over(layers, part(), Volume(array, AFFINE))
    assert (faults["n_odd"], faults["unlisted"]) == (5, ())
    assert [(label.value, label.voxels) for label in measure_labels(layers)] == [(1, 1)]


def test_values_that_a_part_does_not_list_are_told():
    array = np.array([0, 1, 2, 9, 9, 0], np.uint8).reshape(1, 2, 3)
    layers: list[Volume] = []
    faults = lay_over(layers, part({2: 5}), Volume(array, AFFINE))
    assert (faults["n_odd"], faults["unlisted"]) == (0, (1, 9))
    assert [(label.value, label.voxels) for label in measure_labels(layers)] == [(5, 1)]
