"""Largest components against SimpleITK and hand-made cases."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from leanseg.inference.components import keep_largest_component
from leanseg.inference.memory import peak_memory_mb, reset_peak


def kept(labels: np.ndarray, n_labels: int) -> np.ndarray:
    for label in range(1, n_labels + 1):
        keep_largest_component(labels, [label])
    return labels


def sizes_by_itk(mask: np.ndarray) -> np.ndarray:
    """Component number of every voxel, 1 being the largest, by faces."""
    components = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), False)
    return sitk.GetArrayFromImage(sitk.RelabelComponent(components, sortByObjectSize=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_against_simpleitk(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=(23, 17, 19), p=[0.4, 0.25, 0.2, 0.15]).astype(dtype)
    before = labels.copy()
    kept(labels, 3)
    for number in (1, 2, 3):
        components = sizes_by_itk(before == number)
        found = labels == number
        largest = (components == 1).sum()
        assert found.sum() == largest
        numbers = np.unique(components[found])
        assert len(numbers) == 1
        assert (components == numbers[0]).sum() == largest


def test_touching_by_an_edge_is_not_connected() -> None:
    labels = np.zeros((3, 3, 3), dtype=np.uint8)
    labels[0, 0, 0] = 1
    labels[1, 1, 0] = 1
    labels[1, 1, 1] = 1
    kept(labels, 1)
    assert np.argwhere(labels).tolist() == [[1, 1, 0], [1, 1, 1]]


def test_another_label_in_the_same_box_stays() -> None:
    labels = np.zeros((1, 1, 9), dtype=np.uint8)
    labels[0, 0] = [1, 2, 1, 1, 2, 2, 0, 1, 2]
    kept(labels, 2)
    assert labels[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 0]


def test_other_labels_are_left_alone() -> None:
    labels = np.array([1, 0, 1, 1, 0, 5, 0, 5], dtype=np.uint8).reshape(1, 1, 8)
    assert kept(labels, 1).ravel().tolist() == [0, 0, 1, 1, 0, 5, 0, 5]


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full(value: int) -> None:
    labels = np.full((4, 4, 4), value, dtype=np.uint8)
    kept(labels, 2)
    assert (labels == value).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint8, (4, 5, 6), elements=st.integers(0, 2)),
    st.permutations(range(3)),
)
def test_storage_order_does_not_decide_between_equals(labels: np.ndarray, axes) -> None:
    expected = kept(labels.copy(), 2)
    stored = np.empty([labels.shape[axis] for axis in axes], dtype=np.uint8)
    view = stored.transpose(np.argsort(axes))[:, ::-1]
    view[...] = labels
    kept(view, 2)
    np.testing.assert_array_equal(view, expected)


def test_every_permutation_finds_the_box() -> None:
    labels = np.zeros((5, 6, 7), dtype=np.uint8)
    labels[1, 2, 3:6] = 1
    labels[4, 5, 6] = 1
    for axes in permutations(range(3)):
        view = np.array(labels.transpose(axes), order="F").transpose(np.argsort(axes))
        kept(view, 1)
        assert np.argwhere(view).tolist() == [[1, 2, 3], [1, 2, 4], [1, 2, 5]]


def by_scipy(labels: np.ndarray, n_labels: int) -> np.ndarray:
    """The definition, told plainly: of equals the one that is numbered first."""
    result = labels.copy()
    for number in range(1, n_labels + 1):
        components, count = ndimage.label(labels == number)
        if count > 1:
            sizes = np.bincount(components.ravel())
            sizes[0] = 0
            result[(labels == number) & (components != sizes.argmax())] = 0
    return result


@settings(max_examples=300, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=9),
        elements=st.integers(0, 4),
    ),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
)
def test_against_scipy(labels: np.ndarray, axes, steps) -> None:
    stored = np.empty([labels.shape[axis] for axis in axes], dtype=labels.dtype)
    view = stored.transpose(np.argsort(axes))[tuple(slice(None, None, step) for step in steps)]
    view[...] = labels
    assert kept(view, 3) is view
    np.testing.assert_array_equal(view, by_scipy(labels, 3))


@pytest.mark.parametrize(("share", "left"), [(1.0, [8]), (0.75, [6, 8]), (0.5, [4, 6, 8])])
def test_components_nearly_as_large_stay(share: float, left: list[int]) -> None:
    labels = np.zeros((9, 4, 4), np.uint8)
    for start, size in ((0, 4), (2, 6), (4, 8), (6, 3)):
        labels[start].flat[:size] = 1
    keep_largest_component(labels, [1], share=share)
    assert sorted(np.bincount(ndimage.label(labels)[0].ravel())[1:].tolist()) == left


@pytest.mark.parametrize("seed", range(3))
def test_larger_maps_against_scipy(seed: int) -> None:
    """Winding components of every size, so that pieces meet late."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(40, 50, 60)), 1 + seed)
    labels = np.digitize(smooth, np.quantile(smooth, [0.4, 0.5, 0.6, 0.7])).astype(np.uint8)
    np.testing.assert_array_equal(kept(labels.copy(), 4), by_scipy(labels, 4))


def test_memory_is_that_of_a_slice_not_of_the_voxels() -> None:
    if not reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    labels = np.zeros((60, 512, 512), dtype=np.uint8)
    labels[:, 100:400, 100:400] = 1
    labels[:, 200:300, 200:300] = 2
    labels[::2, 5, 5] = 2
    kept(labels[:2], 2)
    reset_peak()
    before = peak_memory_mb()
    kept(labels, 2)
    assert not labels[:, 5, 5].any()
    assert labels[:, 250, 250].all()
    # A map of components would take 63 MB.
    assert peak_memory_mb() < before + 20
