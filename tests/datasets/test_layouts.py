"""Datasets written with nibabel by hand; what open_dataset makes of them is counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import open_dataset
from leanseg.datasets.layouts.listing import foreground_labels
from leanseg.errors import DatasetError, LeansegError


def save(path: Path, values=0, shape=(4, 5, 6), dtype=np.int16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.broadcast_to(np.asarray(values, dtype), shape)
    nib.save(nib.Nifti1Image(np.array(array), np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return path


def decathlon(folder: Path, **changes) -> Path:
    for name in ("b", "a"):
        save(folder / f"imagesTr/{name}.nii.gz")
        save(folder / f"labelsTr/{name}.nii.gz", dtype=np.uint8)
    save(folder / "imagesTs/t.nii.gz")
    save(folder / "imagesTr/._a.nii.gz")
    listing = {
        "name": "Toy",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "2": "tumour", "1": "organ"},
        "training": [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
            for n in ("b", "._a", "a")
        ],
        "test": ["./imagesTs/t.nii.gz"],
    }
    listing["training"][1]["label"] = "./labelsTr/a.nii.gz"
    listing.update(changes)
    listing = {key: value for key, value in listing.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def test_decathlon_is_read_as_listed(tmp_path):
    dataset = open_dataset(decathlon(tmp_path))
    assert dataset.layout == "decathlon"
    assert dataset.name == "Toy"
    assert [case.name for case in dataset.cases] == ["a", "b", "t"]
    assert dataset.labels == {"organ": 1, "tumour": 2}
    assert list(dataset.labels) == ["organ", "tumour"]
    assert dataset.channels == ("CT",)
    assert dataset.case("b").label_path == tmp_path / "labelsTr/b.nii.gz"
    assert not dataset.case("t").label_parts
    assert open_dataset(tmp_path / "dataset.json").cases == dataset.cases


def test_channels_are_sorted_as_numbers(tmp_path):
    modality = {str(n): f"c{n}" for n in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    dataset = open_dataset(decathlon(tmp_path, modality=modality))
    assert dataset.channels == tuple(f"c{n}" for n in range(11))


def test_both_ways_of_writing_labels_mean_the_same():
    old = foreground_labels({"0": "background", "10": "c", "2": "b"})
    new = foreground_labels({"background": 0, "c": 10, "b": 2})
    assert old == new == {"b": 2, "c": 10}
    assert list(old) == list(new) == ["b", "c"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": None}, r"dataset\.json: 'labels': Field required"),
        ({"labels": {"0": "background"}}, "no foreground label"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, r"'whole' has the value \[1, 2\]"),
        ({"labels": {"0": "background", "x": "organ"}}, "'organ' has the value 'x'"),
        ({"labels": {"1": "organ", "2": "organ"}}, "listed twice"),
        ({"labels": ["organ"]}, "must map values to names"),
        ({"training": [], "test": []}, 'lists no case under "training"'),
        ({"training": [{"label": "x"}]}, "'training.0.image': Field required.*{'label': 'x'}"),
        ({"training": {"a": 1}}, "'training': Input should be a valid list"),
        ({"modality": {"zero": "CT"}}, "'modality': .*'zero'"),
        ({"modality": {}}, "must number the channels"),
        ({"test": ["./imagesTr/a.nii.gz"]}, "2 cases are called 'a'"),
    ],
)
def test_bad_listing_is_named(tmp_path, changes, sentence):
    with pytest.raises(DatasetError, match=sentence):
        open_dataset(decathlon(tmp_path, **changes))


def test_missing_files_are_counted_and_three_named(tmp_path):
    entries = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in "pqr"]
    with pytest.raises(DatasetError) as error:
        open_dataset(decathlon(tmp_path, training=entries))
    message = str(error.value)
    assert "6 files that do not exist" in message
    assert message.count(".nii.gz") == 3
    assert "and 3 more" in message


def test_one_missing_file(tmp_path):
    decathlon(tmp_path)
    (tmp_path / "labelsTr/b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 file that does not exist: .*labelsTr/b\.nii\.gz;"):
        open_dataset(tmp_path)


def test_invalid_json_names_line_and_column(tmp_path):
    (tmp_path / "dataset.json").write_text('{\n "name": "x",\n "labels": }')
    with pytest.raises(DatasetError, match="line 3 column 12"):
        open_dataset(tmp_path)


def test_binary_json_and_wrong_top_level(tmp_path):
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DatasetError, match="not text in UTF-8"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[1]")
    with pytest.raises(DatasetError, match=r"the file.*valid dictionary"):
        open_dataset(tmp_path)


def test_folder_missing_empty_file_or_unknown(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: this folder does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="the folder is empty"):
        open_dataset(tmp_path)
    (tmp_path / ".hidden").touch()
    with pytest.raises(DatasetError, match="the folder is empty"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match="no dataset recognised"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="expected a folder or a zip file"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(DatasetError, match="unknown dataset layout 'dicom'"):
        open_dataset(tmp_path, layout="dicom")
    with pytest.raises(DatasetError, match=r"dataset\.json: cannot be read"):
        open_dataset(tmp_path, layout="decathlon")


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("imagesTr", "labelsTr"), ("image", "label"), ("scans", "masks")],
)
def test_plain_pairs_match_by_stem(tmp_path, images, labels):
    save(tmp_path / images / "b.nii.gz")
    save(tmp_path / images / "a.nii")
    save(tmp_path / images / "._b.nii.gz")
    (tmp_path / images / "readme.txt").write_text("x")
    save(tmp_path / labels / "b.nii.gz", values=[0, 3, 0, 0, 7, 0], dtype=np.uint8)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "plain"
    assert [(case.name, not case.label_parts) for case in dataset.cases] == [
        ("a", True),
        ("b", False),
    ]
    assert dataset.labels == {"label_3": 3, "label_7": 7}
    assert len(dataset.channels) == 1


def test_plain_labels_json_gives_names_and_channels(tmp_path):
    save(tmp_path / "images/a.nii.gz")
    save(tmp_path / "labels/a.nii.gz", values=1, dtype=np.uint8)
    text = {"labels": {"1": "liver", "2": "spleen"}, "channels": ["CT"]}
    (tmp_path / "labels.json").write_text(json.dumps(text))
    dataset = open_dataset(tmp_path)
    assert dataset.labels == {"liver": 1, "spleen": 2}
    assert dataset.channels == ("CT",)
    (tmp_path / "labels.json").write_text(json.dumps({"channels": ["T1", "T2"]}))
    with pytest.raises(DatasetError, match="the scans have 1"):
        open_dataset(tmp_path)
    (tmp_path / "labels.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"the file.*valid dictionary"):
        open_dataset(tmp_path)


def test_plain_groups_channel_files(tmp_path):
    for name in ("x_0000", "x_0001", "y_0001", "y_0000"):
        save(tmp_path / f"images/{name}.nii.gz")
    save(tmp_path / "labels/x.nii.gz", values=1, dtype=np.uint8)
    dataset = open_dataset(tmp_path)
    assert [[source.path.name for source in case.images] for case in dataset.cases] == [
        ["x_0000.nii.gz", "x_0001.nii.gz"],
        ["y_0000.nii.gz", "y_0001.nii.gz"],
    ]
    assert len(dataset.channels) == 2
    (tmp_path / "images/y_0001.nii.gz").unlink()
    with pytest.raises(DatasetError, match="y has channel_0, but x has channel_0, channel_1"):
        open_dataset(tmp_path)


def test_plain_numbered_cases_are_not_channels(tmp_path):
    for name in ("case_0000", "case_0001"):
        save(tmp_path / f"images/{name}.nii.gz")
        save(tmp_path / f"labels/{name}.nii.gz", values=1, dtype=np.uint8)
    assert [case.name for case in open_dataset(tmp_path).cases] == ["case_0000", "case_0001"]


def test_bare_scans_are_a_dataset(tmp_path):
    save(tmp_path / "one.nii.gz", shape=(4, 5, 6, 3))
    save(tmp_path / "two.nii", shape=(4, 5, 6, 3))
    dataset = open_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == ["one", "two"]
    assert not any(case.label_parts for case in dataset.cases)
    assert dataset.labels == {}
    assert len(dataset.channels) == 3


def test_plain_bad_pairs_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="images: no scans here"):
        open_dataset(tmp_path)
    save(tmp_path / "images/a.nii.gz")
    (tmp_path / "labels").mkdir()
    with pytest.raises(DatasetError, match="labels: no label maps here"):
        open_dataset(tmp_path)
    save(tmp_path / "labels/a.nii.gz", values=0, dtype=np.uint8)
    with pytest.raises(DatasetError, match="nothing but background"):
        dict(open_dataset(tmp_path).labels)
    save(tmp_path / "labels/z.nii.gz", values=1, dtype=np.uint8)
    with pytest.raises(DatasetError, match=r"z\.nii\.gz: no scan called 'z'"):
        open_dataset(tmp_path)
    save(tmp_path / "images/a.nii")
    with pytest.raises(DatasetError, match="are both scans called 'a'"):
        open_dataset(tmp_path)


@pytest.mark.shared_data
def test_real_decathlon_folders(shared_data):
    sarcoma = open_dataset(shared_data / "Task101_SarcomaCT")
    assert (len(sarcoma.cases), sarcoma.labels, sarcoma.channels) == (24, {"tumour": 1}, ("CT",))
    brain = open_dataset(shared_data / "Task102_BrainTumour")
    assert len(brain.cases) == 6
    assert len(brain.channels) == 4
    assert list(brain.labels.values()) == [1, 2, 3]


def test_plain_label_maps_are_read_only_for_their_names(tmp_path: Path) -> None:
    """Predicting the scans of a dataset needs no label map, not even an undamaged one."""
    save(tmp_path / "images/a.nii.gz")
    save(tmp_path / "labels/a.nii.gz", values=3, dtype=np.uint8)
    whole = (tmp_path / "labels/a.nii.gz").read_bytes()
    (tmp_path / "labels/a.nii.gz").write_bytes(whole[:40])
    dataset = open_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == ["a"]
    with pytest.raises(LeansegError, match=r"a\.nii\.gz"):
        dict(dataset.labels)
    (tmp_path / "labels/a.nii.gz").write_bytes(whole)
    assert dataset.labels == {"label_3": 3}
