"""VISCERAL: organs in files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import layout_samples as samples
from leanseg.datasets import load_case, open_dataset
from leanseg.datasets.layouts.visceral import organs_known
from leanseg.errors import DatasetError

ORGANS = organs_known()

FIRST, SECOND = samples.CASES
SHAPE = (7, 6, 5)


def mask(folder: Path, name: str, *index: slice) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[index] = 1
    samples.save(folder / f"Segmentations/{name}.nii.gz", array)


def test_twenty_organs_of_the_benchmark() -> None:
    assert len(ORGANS) == len(set(ORGANS.values())) == 20
    assert all(organ + 1 in ORGANS for organ in (29662, 30324, 32248, 40357))
    sides = [name.rsplit("_", 1)[1] for name in ORGANS.values() if name.endswith(("left", "right"))]
    assert sides.count("left") == sides.count("right") == 5


def test_missing_organs_are_unknown_and_small_ones_lie_on_top(tmp_path: Path) -> None:
    samples.visceral(tmp_path)
    (tmp_path / f"Segmentations/{SECOND}_86_5.nii.gz").unlink()
    mask(tmp_path, f"{FIRST}_187_3", slice(2, 4))  # gallbladder, inside the liver
    mask(tmp_path, f"{FIRST}_99999_3", slice(0, 1))
    dataset = open_dataset(tmp_path)
    assert list(dataset.labels) == ["liver", "spleen", "gallbladder", "RID99999"]
    assert all(map(dataset.case(FIRST).annotates, dataset.labels))
    assert dataset.case(SECOND).annotated == {"liver"}
    assert dataset.case(SECOND).metadata == {"patient": "10000104"}
    _, label = load_case(dataset.case(FIRST), dataset)
    expected = np.array([0, dataset.labels["liver"], dataset.labels["spleen"]])[
        samples.CASES[FIRST][1]
    ]
    expected[2:4] = dataset.labels["gallbladder"]
    expected[:1] = dataset.labels["RID99999"]
    np.testing.assert_array_equal(label.array, expected)


def test_values_do_not_depend_on_which_organs_there_are(tmp_path: Path) -> None:
    samples.visceral(tmp_path)
    few = dict(open_dataset(tmp_path).labels)
    mask(tmp_path, f"{FIRST}_1302_3", slice(0, 1))
    mask(tmp_path, f"{FIRST}_480_3", slice(0, 1))
    assert few.items() < dict(open_dataset(tmp_path).labels).items()


def test_the_last_of_several_segmentations_counts(tmp_path: Path) -> None:
    samples.visceral(tmp_path)
    mask(tmp_path, f"{FIRST}_58_10", slice(6, 7))
    dataset = open_dataset(tmp_path)
    _, label = load_case(dataset.case(FIRST), dataset)
    liver = np.zeros(SHAPE, bool)
    liver[6:7] = True
    np.testing.assert_array_equal(label.array == dataset.labels["liver"], liver)


def test_modalities_in_folders_of_their_own(tmp_path: Path) -> None:
    image, label = samples.CASES[FIRST]
    for scan in ("10000001_1_CT_wb", "10000001_2_MRT1_wb"):
        kind = scan.split("_")[2]
        samples.save(tmp_path / f"volumes/{kind}/{scan}.nii", image)
        samples.save(tmp_path / f"segmentations/{kind}/{scan}_58_1.nii", (label == 1).astype("u1"))
    dataset = open_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == ["10000001_1_CT_wb", "10000001_2_MRT1_wb"]
    assert {case.metadata["patient"] for case in dataset.cases} == {"10000001"}
    assert dataset.channels == ("CT or MR",)


def test_a_segmentation_without_scan_is_named(tmp_path: Path) -> None:
    samples.visceral(tmp_path)
    mask(tmp_path, "10000999_1_CTce_ThAb_58_4")
    with pytest.raises(DatasetError, match=r"no scan called '10000999_1_CTce_ThAb' in Volumes"):
        open_dataset(tmp_path)
