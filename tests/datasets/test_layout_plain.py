"""What the plain layout knows besides scans and label maps of the same names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import layout_samples as samples
from dicom_writer import write_series
from leanseg.datasets import load_case, open_dataset
from leanseg.errors import DatasetError, LeansegError

FIRST, SECOND = samples.CASES


def describe(folder: Path, **listing: object) -> None:
    content = {"labels": {"1": "liver", "2": "spleen"}, "channels": ["CT"]} | listing
    (folder / "labels.json").write_text(json.dumps(content))


def test_annotated_and_metadata(tmp_path: Path) -> None:
    samples.plain(tmp_path)
    describe(tmp_path, annotated={SECOND: ["spleen"]}, metadata={FIRST: {"patient": "7"}})
    dataset = open_dataset(tmp_path)
    assert dataset.case(FIRST).annotated is None
    assert dataset.case(SECOND).annotated == {"spleen"}
    assert dataset.case(FIRST).metadata == {"patient": "7"}


@pytest.mark.parametrize(
    ("listing", "sentence"),
    [
        ({"annotated": ["liver"]}, "'annotated': Input should be a valid dictionary"),
        ({"annotated": {FIRST: "liver"}}, f"'annotated.{FIRST}': .* list, but found 'liver'"),
        ({"annotated": {"nobody": ["liver"]}}, "names the case 'nobody', which has no scan"),
        ({"annotated": {FIRST: ["lung"]}}, "annotates 'lung', which is no label here"),
        ({"annotated": {FIRST: [["liver"]]}}, r"string, but found \['liver'\]"),
        ({"metadata": {"nobody": {}}}, "names the case 'nobody', which has no scan"),
        ({"metadata": {FIRST: {"patient": 7}}}, f"'metadata.{FIRST}.patient': .* found 7"),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, listing: dict, sentence: str) -> None:
    samples.plain(tmp_path)
    describe(tmp_path, **listing)
    with pytest.raises(DatasetError, match=sentence):
        open_dataset(tmp_path)


def test_one_listed_channel_makes_numbered_scans_cases(tmp_path: Path) -> None:
    image, _ = samples.CASES[FIRST]
    for name in ("a_0000", "a_0001"):
        samples.save(tmp_path / f"images/{name}.nii.gz", image)
    assert [case.name for case in open_dataset(tmp_path).cases] == ["a"]
    describe(tmp_path)
    assert [case.name for case in open_dataset(tmp_path).cases] == ["a_0000", "a_0001"]


def test_dicom_series_are_scans(tmp_path: Path) -> None:
    """In folders and in zip files, below images/ or by themselves."""
    for name, (image, label) in samples.CASES.items():
        write_series(tmp_path / f"images/{name}", image, samples.AFFINE)
        samples.save(tmp_path / f"labels/{name}.nii.gz", label)
    shutil.make_archive(str(tmp_path / f"images/{SECOND}"), "zip", tmp_path / f"images/{SECOND}")
    shutil.rmtree(tmp_path / f"images/{SECOND}")
    describe(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "plain"
    assert [case.name for case in dataset.cases] == [FIRST, SECOND]
    for case, (image, label) in zip(dataset.cases, samples.CASES.values(), strict=True):
        scan, found = load_case(case, dataset)
        np.testing.assert_array_equal(scan.array, image)
        np.testing.assert_array_equal(found.array, label)
        np.testing.assert_allclose(scan.affine, samples.AFFINE, atol=1e-6)
    bare = open_dataset(tmp_path / "images")
    assert [case.name for case in bare.cases] == [FIRST, SECOND]


def test_a_zip_beside_bare_scans_is_no_scan(tmp_path: Path) -> None:
    image, _ = samples.CASES[FIRST]
    samples.save(tmp_path / "a.nii.gz", image)
    (tmp_path / "old.zip").write_bytes(b"PK nothing")
    assert [case.name for case in open_dataset(tmp_path).cases] == ["a"]
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(LeansegError, match=r"old\.zip: the zip file is damaged"):
        open_dataset(tmp_path)
