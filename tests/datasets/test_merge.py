"""Datasets merged by the names of their labels, never by value."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import (
    Case,
    Dataset,
    LabelPart,
    VolumeSource,
    find_label,
    is_ignore,
    load_case,
    merge_datasets,
    without_ignore,
)
from leanseg.errors import DatasetError

SHAPE = (4, 3, 2)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1, 2, 1])), path)
    return path


def dataset(folder: Path, labels, values, channels=("CT",), names=("a",), **options) -> Dataset:
    cases = []
    for name in names:
        image = save(folder / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
        array = np.resize(np.array(values, np.uint8), SHAPE)
        label = save(folder / f"{name}_label.nii.gz", array)
        cases.append(Case(image, label, name, **options))
    return Dataset(cases, labels, channels, name=folder.name, root=folder)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("left kidney", "kidney_left"),
        ("Kidney-LEFT", "kidney_left"),
        ("kidney_left", "kidney_left"),
        ("kidney", None),
        ("left kidneys", None),
    ],
)
def test_labels_are_found_in_any_spelling(name, found):
    assert find_label(name, ["liver", "kidney_left", "kidney_right"]) == found


def test_an_exact_name_goes_before_another_spelling():
    assert find_label("left_kidney", ["left kidney", "left_kidney"]) == "left_kidney"


def test_values_follow_names(tmp_path):
    first = dataset(tmp_path / "one", {"liver": 1, "left kidney": 2}, [0, 1, 2])
    second = dataset(
        tmp_path / "two", {"kidney_left": 1, "pancreas": 4, "Liver": 9}, [9, 4, 1, 0], names=("b",)
    )
    merged = merge_datasets([first, second])
    assert merged.labels == {"liver": 1, "left kidney": 2, "pancreas": 3}
    assert merged.case("a").annotated == {"liver", "left kidney"}
    assert merged.case("b").annotated == {"liver", "left kidney", "pancreas"}
    assert not merged.case("a").annotates("pancreas")
    _, a = load_case(merged.case("a"), merged)
    _, b = load_case(merged.case("b"), merged)
    np.testing.assert_array_equal(a.array, np.resize([0, 1, 2], SHAPE))
    # 9 liver -> 1, 4 pancreas -> 3, 1 left kidney -> 2.
    np.testing.assert_array_equal(b.array, np.resize([1, 3, 2, 0], SHAPE))


def test_what_is_ignored_stays_ignored(tmp_path):
    first = dataset(tmp_path / "one", {"liver": 1, "Ignore": 2}, [0, 1, 2])
    second = dataset(tmp_path / "two", {"spleen": 1, "ignore": 9}, [1, 9], names=("b",))
    third = dataset(tmp_path / "three", {"liver": 2}, [0, 2], names=("c",))
    merged = merge_datasets([first, second, third])
    assert merged.labels == {"liver": 1, "Ignore": 2, "spleen": 3}
    expected = {"a": [0, 1, 2], "b": [3, 2], "c": [0, 1]}
    for name, values in expected.items():
        _, label = load_case(merged.case(name), merged)
        np.testing.assert_array_equal(label.array, np.resize(values, SHAPE))
    assert without_ignore(merged.labels) == {"liver": 1, "spleen": 3}


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("ignore", True),
        ("IGNORE", True),
        (" Ignore", True),
        ("ignored", False),
        ("ignore it", False),
    ],
)
def test_the_name_that_marks_ignored_voxels(name, ignored):
    assert is_ignore(name) == ignored


def test_what_a_case_leaves_out_stays_left_out(tmp_path):
    first = dataset(
        tmp_path / "one", {"liver": 1, "spleen": 2}, [0, 1], annotated=frozenset({"liver"})
    )
    second = dataset(tmp_path / "two", {"spleen": 1}, [0, 1], names=("b",))
    merged = merge_datasets([first, second])
    assert merged.case("a").annotated == {"liver"}
    assert merged.case("b").annotated == {"spleen"}


def test_parts_with_values_are_renumbered(tmp_path):
    first = dataset(tmp_path / "one", {"liver": 1}, [1])
    image = save(tmp_path / "two/b.nii.gz", np.zeros(SHAPE, np.int16))
    mask = VolumeSource(
        save(tmp_path / "two/mask.nii.gz", np.resize([0, 255], SHAPE).astype(np.uint8))
    )
    other = VolumeSource(
        save(tmp_path / "two/other.nii.gz", np.resize([0, 5, 6], SHAPE).astype(np.uint8))
    )
    parts = (LabelPart(mask, value=7), LabelPart(other, values={5: 7, 6: 8}, covers=True))
    labels = {"spleen": 7, "liver": 8}
    case = Case(image, parts, "b")
    second = Dataset([case], labels, ("CT",), name="two")
    merged = merge_datasets([first, second])
    before = load_case(case, second)[1].array
    after = load_case(merged.case("b"), merged)[1].array
    assert merged.labels == {"liver": 1, "spleen": 2}
    np.testing.assert_array_equal(after == 2, before == 7)
    np.testing.assert_array_equal(after == 1, before == 8)


def test_names_that_occur_twice_carry_their_dataset(tmp_path):
    one = dataset(tmp_path / "one", {"x": 1}, [1], names=("a", "b"), metadata={"patient": "7"})
    two = dataset(tmp_path / "two", {"x": 1}, [1], names=("a", "c"), metadata={"patient": "7"})
    merged = merge_datasets([one, two])
    assert [case.name for case in merged.cases] == ["b", "c", "one_a", "two_a"]
    patients = {case.name: case.metadata["patient"] for case in merged.cases}
    assert patients["b"] == patients["one_a"] != patients["two_a"] == patients["c"]


def test_channels_must_agree(tmp_path):
    ct = dataset(tmp_path / "one", {"x": 1}, [1])
    mr = dataset(tmp_path / "two", {"x": 1}, [1], ("T1w",), ("b",))
    unnamed = dataset(tmp_path / "three", {"x": 1}, [1], ("channel_0",), ("c",))
    with pytest.raises(DatasetError, match=r"same channels.*CT.*T1w"):
        merge_datasets([ct, mr])
    assert merge_datasets([unnamed, ct]).channels == ("CT",)
    assert merge_datasets([ct, unnamed]).channels == ("CT",)
    with pytest.raises(DatasetError, match="same channels"):
        merge_datasets([unnamed, ct, mr])


def test_one_dataset_is_left_as_it_is(tmp_path):
    one = dataset(tmp_path / "one", {"x": 3}, [3])
    assert merge_datasets([one]) is one
