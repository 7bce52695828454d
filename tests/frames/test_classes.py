"""Label files as classes, against PyTorch and nibabel."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from leanseg.errors import RecipeError
from leanseg.frames.classes import class_lookup, class_map, containment, resize_classes
from leanseg.volumes import Volume
from plans import slices

LPS = np.diag([-0.8, -0.8, 2.5, 1.0])
CODES = ("LPS", "RAS", "LAS", "SRA", "PIR", "AIL", "RIP")


def stored_as(volume: Volume, codes: str) -> Volume:
    """The same scan stored in another orientation, by nibabel."""
    image = nib.Nifti1Image(volume.array, volume.affine)
    wanted = axcodes2ornt(codes)
    moved = image.as_reoriented(ornt_transform(io_orientation(volume.affine), wanted))
    return Volume(np.asfortranarray(np.asanyarray(moved.dataobj)), moved.affine)


def test_labels_are_merged_and_others_are_background() -> None:
    values = np.array([0, 1, 2, 3, 7, 9, 255], dtype=np.uint8).reshape(7, 1, 1)
    stage = slices((8, 8), ("tumour", "organ")).final
    found = class_map(Volume(values, LPS), stage, {"organ": [1, 2], "tumour": [7]})
    assert found.dtype == np.uint8
    assert found.shape == (1, 7, 1)
    assert found.ravel().tolist() == [0, 2, 2, 0, 1, 0, 0]


def test_many_labels_need_uint16() -> None:
    names = tuple(f"label {n}" for n in range(300))
    values = {name: [n + 1] for n, name in enumerate(names)}
    table = class_lookup(names, values)
    assert table.dtype == np.uint16
    assert table.tolist() == [*range(301), 0]
    label = Volume(np.array([0, 256, 300, 60000], dtype=np.uint16).reshape(4, 1, 1), LPS)
    assert class_map(label, slices((8, 8), names).final, values).ravel().tolist() == [
        0,
        256,
        300,
        0,
    ]


SETS = st.lists(st.frozensets(st.integers(1, 6), max_size=5), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(SETS)
def test_values_that_two_classes_share_are_nested_or_refused(sets: list[frozenset[int]]) -> None:
    """No voxel that two classes claim is silently taken from one of them."""
    values = {f"class {n}": sorted(each) for n, each in enumerate(sets)}
    pairs = [(a, b) for n, a in enumerate(sets) for b in sets[n + 1 :] if a & b]
    if any(not (a < b or b < a) for a, b in pairs):
        for refuse in (lambda: containment(values), lambda: class_lookup(list(values), values)):
            with pytest.raises(RecipeError, match=r"the value \d belongs to both 'class \d' and"):
                refuse()
        return
    inside = containment(values)
    stage = slices((8, 8), list(values), inside=inside).final
    for (name, own), mine in zip(values.items(), sets, strict=True):
        around = [n for n, each in enumerate(sets) if mine and mine < each]
        smallest = min(around, key=lambda n: len(sets[n]), default=None)
        assert inside.get(name) == (None if smallest is None else f"class {smallest}")
        # Whatever is claimed is found again, by the classes that belong to the label.
        label = Volume(np.arange(8, dtype=np.uint8).reshape(8, 1, 1), LPS)
        found = np.isin(class_map(label, stage, values).ravel(), stage.label_values[name])
        np.testing.assert_array_equal(found, np.isin(np.arange(8), own))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": [1, 2], "b": [3, 2]}, "value 2 belongs to both 'a' and 'b'"),
        ({"a": [1, 2], "b": [2, 1]}, "value 1 belongs to both 'a' and 'b'"),
        ({"a": [1, 2, 3, 4], "b": [2, 3], "c": [3, 4]}, "value 3 belongs to both 'b' and 'c'"),
    ],
)
def test_what_is_said_of_values_that_overlap(values, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        class_lookup(list(values), values)


def test_a_stage_that_knows_nothing_of_regions_is_not_given_any() -> None:
    label = Volume(np.zeros((2, 2, 2), dtype=np.uint8), LPS)
    values = {"tumour": [2], "kidney": [1, 2]}
    stage = slices((8, 8), ("tumour", "kidney")).final
    with pytest.raises(RecipeError, match="'tumour' are all among those of 'kidney', but stage"):
        class_map(label, stage, values)


@pytest.mark.parametrize("codes", CODES)
def test_the_class_map_is_oriented_as_the_slices(rng, codes: str) -> None:
    array = rng.integers(0, 3, size=(7, 6, 5), dtype=np.uint8)
    stage = slices((8, 8), ("a", "b")).final
    values = {"a": [1], "b": [2]}
    expected = class_map(Volume(array, LPS), stage, values)
    np.testing.assert_array_equal(expected, array.transpose(2, 0, 1))
    np.testing.assert_array_equal(
        class_map(stored_as(Volume(array, LPS), codes), stage, values), expected
    )


@pytest.mark.parametrize("shape", [(16, 16), (5, 9), (40, 23)])
def test_classes_are_resized_to_the_nearest(rng, shape: tuple[int, int]) -> None:
    classes = rng.integers(0, 4, size=(3, 20, 23), dtype=np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(classes)[:, None], size=shape, mode="nearest-exact"
    )[:, 0]
    found = resize_classes(classes, (*shape, 3))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected.numpy())


def test_ignored_values_become_the_class_after_the_last() -> None:
    values = np.array([0, 1, 4, 7, 9], dtype=np.uint8).reshape(5, 1, 1)
    stage = slices((8, 8), ("tumour", "organ")).final
    label_values = {"organ": [1], "tumour": [7]}
    found = class_map(Volume(values, LPS), stage, label_values, [9, 4])
    assert found.ravel().tolist() == [0, 2, 3, 1, 3]
    # Resizing keeps whole voxels ignored.
    assert resize_classes(found, (10, 1, 1)).ravel().tolist() == [0, 0, 2, 2, 3, 3, 1, 1, 3, 3]
    # What a class is made of is that class, as a recipe may say.
    assert class_lookup(["a"], {"a": [4]}, [4, 9]).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0]


@pytest.mark.parametrize(("n_labels", "dtype"), [(254, np.uint8), (255, np.uint16)])
def test_the_ignored_class_has_room(n_labels: int, dtype: type) -> None:
    names = [f"label {n}" for n in range(1, n_labels + 1)]
    values = {name: [n] for n, name in enumerate(names, start=1)}
    table = class_lookup(names, values, [60000])
    assert table.dtype == dtype
    assert table[n_labels] == n_labels
    assert table[60000] == n_labels + 1
    assert class_lookup(names, values).dtype == np.uint8
