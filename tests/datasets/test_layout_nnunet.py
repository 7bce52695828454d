"""What nnU-Net's raw data folders hold besides the plain sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import layout_samples as samples
from leanseg.datasets import load_case, open_dataset
from leanseg.errors import DatasetError

IMAGE, LABEL = next(iter(samples.CASES.values()))


def change(folder: Path, **listing: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | listing))


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii"])
def test_other_file_endings(tmp_path: Path, ending: str) -> None:
    samples.nnunet(tmp_path, ending)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "nnunet"
    for case, (image, label) in zip(dataset.cases, samples.CASES.values(), strict=True):
        scan, found = load_case(case, dataset)
        np.testing.assert_array_equal(scan.array, image)
        np.testing.assert_array_equal(found.array, label)
        np.testing.assert_allclose(scan.affine, samples.AFFINE, atol=1e-9)


def test_unknown_file_ending(tmp_path: Path) -> None:
    samples.nnunet(tmp_path)
    change(tmp_path, file_ending=".png")
    with pytest.raises(DatasetError, match=r"'file_ending': leanseg reads .nii.gz.* found '.png'"):
        open_dataset(tmp_path)


def test_channels_test_scans_and_their_labels(tmp_path: Path) -> None:
    samples.nnunet(tmp_path, channel_names={"0": "T1", "1": "T2"})
    for name in samples.CASES:
        samples.save(tmp_path / f"imagesTr/{name}_0001.nii.gz", IMAGE + 1)
    for name in ("t1", "t2"):
        for channel in (0, 1):
            samples.save(tmp_path / f"imagesTs/{name}_000{channel}.nii.gz", IMAGE)
    samples.save(tmp_path / "labelsTs/t2.nii.gz", LABEL)
    dataset = open_dataset(tmp_path)
    assert dataset.channels == ("T1", "T2")
    facts = {c.name: (c.metadata["part"], bool(c.label_parts)) for c in dataset.cases}
    first, second = samples.CASES
    assert facts == {
        first: ("training", True),
        second: ("training", True),
        "t1": ("test", False),
        "t2": ("test", True),
    }
    scan, _ = load_case(dataset.case(first), dataset)
    np.testing.assert_array_equal(scan.array, np.stack([IMAGE, IMAGE + 1], axis=-1))


def test_a_list_of_cases_goes_before_the_folders(tmp_path: Path, monkeypatch) -> None:
    samples.save(tmp_path / "elsewhere/scan.nii.gz", IMAGE)
    samples.save(tmp_path / "elsewhere/drawn.nii.gz", LABEL)
    raw = tmp_path / "Dataset007_Toy"
    listed = {
        "one": {"images": ["../elsewhere/scan.nii.gz"], "label": "$PLACE/drawn.nii.gz"},
        "two": {"images": [str(tmp_path / "elsewhere/scan.nii.gz")], "label": None},
    }
    monkeypatch.setenv("PLACE", str(tmp_path / "elsewhere"))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2}}
    samples.write_json(raw / "dataset.json", content | {"dataset": listed})
    dataset = open_dataset(raw)
    assert (dataset.layout, dataset.name) == ("nnunet", "Dataset007_Toy")
    assert [case.name for case in dataset.cases] == ["one", "two"]
    _, label = load_case(dataset.case("one"), dataset)
    np.testing.assert_array_equal(label.array, LABEL)
    assert dataset.case("two").label_parts == ()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # BraTS, as nnU-Net's documentation writes it.
        (
            {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
            {"label_1": 1, "label_2": 2, "enhancing": 3},
        ),
        # KiTS23.
        (
            {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2},
            {"label_1": 1, "tumour": 2, "label_3": 3},
        ),
        # Its documentation, "ignore label", which regions may be beside.
        (
            {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
            {"label_1": 1, "core": 2, "ignore": 3},
        ),
        ({"background": 0, "liver": 1, "ignore": 2}, {"liver": 1, "ignore": 2}),
    ],
)
def test_regions_become_the_numbers_in_the_label_maps(tmp_path: Path, labels, expected) -> None:
    samples.nnunet(tmp_path, labels=labels, regions_class_order=[1, 2, 3])
    assert open_dataset(tmp_path).labels == expected


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"background": 0, "liver": 1, "ignore": [2, 3]}, r'"ignore" is \[2, 3\]; give it one'),
        ({"background": 0, "liver": [1, "x"]}, r"region 'liver' is \[1, 'x'\]"),
        ({"background": 0}, "no foreground label"),
        ({"liver": 1, "spleen": 70000}, "'spleen' has the value 70000; .* from 0 to 65535"),
    ],
)
def test_labels_that_cannot_be_taken(tmp_path: Path, labels, sentence: str) -> None:
    samples.nnunet(tmp_path, labels=labels)
    with pytest.raises(DatasetError, match=sentence):
        open_dataset(tmp_path)


def test_missing_label_channel_and_scans_are_named(tmp_path: Path) -> None:
    samples.nnunet(tmp_path)
    first = next(iter(samples.CASES))
    (tmp_path / f"labelsTr/{first}.nii.gz").unlink()
    with pytest.raises(DatasetError, match=rf"1 file that does not exist: .*labelsTr/{first}"):
        open_dataset(tmp_path)
    samples.save(tmp_path / f"labelsTr/{first}.nii.gz", LABEL)
    samples.save(tmp_path / f"imagesTr/{first}_0002.nii.gz", IMAGE)
    with pytest.raises(DatasetError, match="has this channel, but not that of number 0001"):
        open_dataset(tmp_path)
    (tmp_path / f"imagesTr/{first}_0002.nii.gz").unlink()
    change(tmp_path, channel_names={"0": "CT", "1": "PET"})
    with pytest.raises(DatasetError, match=r"has 1 file\(s\), but the channels are CT, PET"):
        open_dataset(tmp_path)


def test_task_folders_of_the_first_version(tmp_path: Path) -> None:
    """They list names without the channel, under which there is no file."""
    samples.decathlon(tmp_path)
    for path in (tmp_path / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "nnunet"
    assert dataset.labels == {"liver": 1, "spleen": 2}
    assert [case.name for case in dataset.cases] == list(samples.CASES)


def test_a_decathlon_listing_stays_one(tmp_path: Path) -> None:
    samples.decathlon(tmp_path)
    change(tmp_path, channel_names={"0": "CT"}, file_ending=".nii.gz")
    assert open_dataset(tmp_path).layout == "decathlon"


def test_a_list_of_training_files_beside_numbered_scans_changes_nothing(tmp_path: Path) -> None:
    samples.nnunet(tmp_path, training=[{"image": f"./imagesTr/{n}.nii.gz"} for n in samples.CASES])
    assert [case.name for case in open_dataset(tmp_path).cases] == list(samples.CASES)
    assert open_dataset(tmp_path).layout == "nnunet"
