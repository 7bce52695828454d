"""A folder for each case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import layout_samples as samples
from leanseg.datasets import load_case, open_dataset
from leanseg.datasets.check import check
from leanseg.errors import DatasetError

IMAGE, LABEL = next(iter(samples.CASES.values()))


def case(folder: Path, names: dict | None, scan="ct.nii.gz", label="labels.nii.gz", values=LABEL):
    samples.save(folder / scan, IMAGE)
    if label:
        samples.save(folder / label, values)
    if names is not None:
        samples.write_json(folder / "labels.json", {"labels": names, "note": "x"})


def test_names_unite_what_cases_number_differently(tmp_path: Path) -> None:
    case(tmp_path / "a", {"1": "liver", "2": "spleen"})
    case(tmp_path / "b", {"1": "spleen", "2": "kidney"})
    case(tmp_path / "c", {"2": "spleen"}, values=LABEL * (LABEL == 2))
    case(tmp_path / "d", None, label=None)
    dataset = open_dataset(tmp_path)
    assert dataset.labels == {"liver": 1, "spleen": 2, "kidney": 3}
    annotated = {item.name: item.annotated for item in dataset.cases}
    assert annotated == {
        "a": {"liver", "spleen"},
        "b": {"spleen", "kidney"},
        "c": {"spleen"},
        "d": None,
    }
    assert not dataset.case("d").annotates("liver")
    _, label = load_case(dataset.case("b"), dataset)
    np.testing.assert_array_equal(label.array, np.array([0, 2, 3])[LABEL])
    _, label = load_case(dataset.case("c"), dataset)
    np.testing.assert_array_equal(label.array, LABEL * (LABEL == 2))


@pytest.mark.parametrize("scan", ["image.mha", "imaging.nii.gz", "Scan.nii", "CT.nii.gz"])
@pytest.mark.parametrize("label", ["label.nii.gz", "segmentation.nii", "mask.nrrd"])
def test_one_case_by_itself(tmp_path: Path, scan: str, label: str) -> None:
    case(tmp_path / "patient 7", {"1": "liver", "2": "spleen"}, scan, label)
    dataset = open_dataset(tmp_path / "patient 7")
    assert [item.name for item in dataset.cases] == ["patient 7"]
    assert dataset.cases[0].annotated is None
    np.testing.assert_array_equal(load_case(dataset.cases[0], dataset)[1].array, LABEL)
    assert dataset.channels == ("CT" if scan == "CT.nii.gz" else "channel_0",)


def test_names_beside_the_folders_and_none_at_all(tmp_path: Path) -> None:
    case(tmp_path / "a", None)
    case(tmp_path / "b", None)
    assert open_dataset(tmp_path).labels == {"label_1": 1, "label_2": 2}
    samples.write_json(tmp_path / "labels.json", {"labels": {"liver": 1, "spleen": 2}})
    assert open_dataset(tmp_path).labels == {"liver": 1, "spleen": 2}


def test_masks_of_organs_in_a_folder(tmp_path: Path) -> None:
    """As in TotalSegmentator's dataset."""
    for name, organs in (("s0001", ("liver", "spleen")), ("s0002", ("liver",))):
        samples.save(tmp_path / name / "ct.nii.gz", IMAGE)
        for organ in organs:
            value = {"liver": 1, "spleen": 2}[organ]
            mask = (value == LABEL).astype(np.uint8)
            samples.save(tmp_path / name / f"segmentations/{organ}.nii.gz", mask)
    dataset = open_dataset(tmp_path)
    assert dataset.labels == {"liver": 1, "spleen": 2}
    assert dataset.case("s0001").annotated is None
    assert dataset.case("s0002").annotated == {"liver"}
    np.testing.assert_array_equal(load_case(dataset.cases[0], dataset)[1].array, LABEL)


def test_a_mask_of_ignored_voxels_lies_over_all_others(tmp_path: Path) -> None:
    ignored = np.zeros_like(LABEL)
    ignored[2:5, 2:4, 2:] = 1
    assert {1, 2} <= set(LABEL[ignored > 0].tolist())
    samples.save(tmp_path / "a/ct.nii.gz", IMAGE)
    for name, mask in (("ignore", ignored), ("liver", LABEL == 1), ("spleen", LABEL == 2)):
        samples.save(tmp_path / f"a/segmentations/{name}.nii.gz", mask.astype(np.uint8))
    dataset = open_dataset(tmp_path)
    assert check(dataset).counts()["error"] == 0
    _, label = load_case(dataset.cases[0], dataset)
    values = np.array([0, dataset.labels["liver"], dataset.labels["spleen"]])
    expected = np.where(ignored, dataset.labels["ignore"], values[LABEL])
    np.testing.assert_array_equal(label.array, expected)


def test_ambiguous_folders_are_named(tmp_path: Path) -> None:
    case(tmp_path / "a", {"1": "liver", "2": "spleen"})
    samples.save(tmp_path / "b/ct.nii.gz", IMAGE)
    samples.save(tmp_path / "b/mr.nii.gz", IMAGE)
    with pytest.raises(DatasetError, match=r"b/ct\.nii\.gz and mr\.nii\.gz are both scans"):
        open_dataset(tmp_path)
    (tmp_path / "b/mr.nii.gz").unlink()
    samples.save(tmp_path / "b/mask.nii.gz", LABEL)
    with pytest.raises(DatasetError, match=r"b/mask\.nii\.gz: other labels have names"):
        open_dataset(tmp_path)


@pytest.mark.shared_data
def test_real_case_folders(shared_data: Path, tmp_path: Path) -> None:
    one = open_dataset(shared_data / "abdomen_ircad01")
    assert one.layout == "casefolders"
    assert list(one.labels) == ["liver", "liver_lesion", "kidney_right", "kidney_left", "spleen"]
    assert one.channels == ("CT",)
    for name in ("abdomen_ircad01", "abdomen_ircad17_half"):
        (tmp_path / name).symlink_to(shared_data / name)
    both = open_dataset(tmp_path)
    assert dict(both.labels) == dict(one.labels)
    assert both.case("abdomen_ircad01").annotated is None
    assert both.case("abdomen_ircad17_half").annotated == {"liver", "liver_lesion"}
    scan, label = load_case(both.case("abdomen_ircad17_half"), both)
    assert scan.shape == label.shape == (231, 214, 119)
