"""The same two cases in every layout: recognised for what they are, and read back identical."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import layout_samples as samples
from leanseg.datasets import LAYOUTS, load_case, open_dataset
from leanseg.volumes import reorient

ALL = sorted(samples.WRITERS)


def write(layout: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    samples.WRITERS[layout](folder)
    return folder


@pytest.mark.parametrize("layout", ALL)
def test_each_layout_comes_back_identical(tmp_path: Path, layout: str) -> None:
    dataset = open_dataset(write(layout, tmp_path / "d"))
    assert dataset.layout == layout
    labels = samples.LABELS.get(layout, {"liver": 1, "spleen": 2})
    assert dict(dataset.labels) == labels
    assert list(dataset.labels) == list(labels)
    expected_channel = {"table": "image"}.get(layout, "CT")
    assert dataset.channels == (expected_channel,)
    assert [case.name for case in dataset.cases] == samples.NAMES.get(layout, list(samples.CASES))
    for case, (image, label) in zip(dataset.cases, samples.CASES.values(), strict=True):
        scan, found = load_case(case, dataset)
        scan, found = reorient(scan, "LPS"), reorient(found, "LPS")
        assert scan.array.dtype == np.int16
        np.testing.assert_array_equal(scan.array, image)
        values = np.array([0, *labels.values()])
        np.testing.assert_array_equal(found.array, values[label])
        np.testing.assert_allclose(scan.affine, samples.AFFINE, atol=1e-6)
        np.testing.assert_allclose(found.affine, samples.AFFINE, atol=1e-6)
        assert all(case.annotates(name) for name in labels)


@pytest.mark.parametrize("layout", ALL)
def test_each_layout_is_recognised_without_reading_a_scan(tmp_path: Path, layout: str) -> None:
    folder = write(layout, tmp_path / "d")
    samples.add_junk(folder)
    samples.empty_volumes(folder)
    (folder / "sub-empty").rmdir()
    names = list(LAYOUTS)
    earlier = names[: names.index(layout)]
    assert LAYOUTS[layout].recognises(folder)
    assert [name for name in earlier if LAYOUTS[name].recognises(folder)] == []
    # Three general layouts come last and take what is left: a dataset.json, folders with a scan
    # named like one (KiTS19's too), and scans that lie somehow.
    general = {"decathlon", "plain"} | ({"casefolders"} if layout == "kits19" else set())
    recognised = {name for name in names if LAYOUTS[name].recognises(folder)}
    assert recognised - general - {layout} == set()


@pytest.mark.parametrize("layout", ALL)
def test_junk_and_zip_change_nothing(tmp_path: Path, layout: str) -> None:
    folder = write(layout, tmp_path / "d")
    clean = open_dataset(folder)
    samples.add_junk(folder)
    littered = open_dataset(folder)
    assert littered.layout == layout
    assert littered.cases == clean.cases
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "d"))
    packed = open_dataset(archive)
    assert packed.layout == layout
    assert dict(packed.labels) == dict(clean.labels)
    first, second = load_case(packed.cases[0], packed), load_case(clean.cases[0], clean)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.array, b.array)


def test_an_empty_subject_folder_is_no_bids_tree(tmp_path: Path) -> None:
    write("plain", tmp_path)
    (tmp_path / "sub-01/anat").mkdir(parents=True)
    (tmp_path / "sub-01/anat/scan.nii.gz").write_bytes(b"x")
    assert open_dataset(tmp_path).layout == "plain"
