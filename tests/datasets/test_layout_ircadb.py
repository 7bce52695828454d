"""3D-IRCADb-01 written with pydicom, as folders and as the zip files that it comes in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dicom_writer import volume_datasets, write_slices
from leanseg.datasets import LAYOUTS, load_case, open_dataset
from leanseg.datasets.layouts import ircadb
from leanseg.errors import DatasetError

AFFINE = np.array([[-0.6, 0, 0, 150], [0, -0.6, 0, 120], [0, 0, 1.6, 0], [0, 0, 0, 1.0]])
SHAPE = (8, 7, 12)


def write_patient(root: Path, image: np.ndarray, masks: dict[str, np.ndarray], *, zipped=False):
    """Files image_0 (the highest slice) to image_11, without endings."""

    def series(folder: Path, array: np.ndarray, intercept: float) -> None:
        datasets = volume_datasets(array.astype(np.int16), AFFINE, intercept=intercept)
        write_slices(folder, datasets[::-1], pattern="image_{}")

    series(root / "PATIENT_DICOM", image, -1024)
    for name, mask in masks.items():
        series(root / "MASKS_DICOM" / name, mask * 255, 0)
    (root / "LABELLED_DICOM").mkdir()
    if zipped:
        for name in ("PATIENT_DICOM", "MASKS_DICOM"):
            shutil.make_archive(str(root / name), "zip", root, name)
            shutil.rmtree(root / name)
    return root


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.integers(-500, 500, SHAPE).astype(np.int16)


@pytest.fixture
def masks(rng) -> dict[str, np.ndarray]:
    names = ("liver", "livertumor01", "livertumor02", "skin", "bone", "portalvein1", "venacava")
    return {name: rng.integers(0, 2, SHAPE).astype(np.uint8) for name in names}


def merged(masks: dict[str, np.ndarray], labels: dict[str, int]) -> np.ndarray:
    """The label map as the layout's docstring states the order, one line per structure."""
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[masks["skin"] > 0] = labels["skin"]
    expected[masks["bone"] > 0] = labels["bone"]
    expected[masks["liver"] > 0] = labels["liver"]
    expected[masks["portalvein1"] > 0] = labels["portal vein"]
    expected[masks["venacava"] > 0] = labels["vena cava"]
    expected[masks["livertumor01"] > 0] = labels["liver lesion"]
    expected[masks["livertumor02"] > 0] = labels["liver lesion"]
    return expected


@pytest.mark.parametrize("zipped", [False, True])
def test_a_patient_comes_back(tmp_path, image, masks, zipped):
    write_patient(tmp_path / "3Dircadb1.1", image, masks, zipped=zipped)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.channels) == ("3d-ircadb", ("CT",))
    assert (dataset.labels["liver"], dataset.labels["liver lesion"]) == (1, 2)
    names = {"liver", "liver lesion", "skin", "bone", "portal vein", "vena cava"}
    assert set(dataset.labels) == names
    assert list(dataset.labels.values()) == sorted(set(dataset.labels.values()))
    (case,) = dataset.cases
    assert (case.name, case.metadata, case.annotated) == ("ircadb_01", {"patient": "1"}, names)
    volume, label = load_case(case, dataset)
    np.testing.assert_array_equal(volume.array, image)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)
    np.testing.assert_array_equal(label.array, merged(masks, dict(dataset.labels)))


def test_from_one_zip_of_zips(tmp_path, image, masks):
    write_patient(tmp_path / "3Dircadb1/3Dircadb1.4", image, masks, zipped=True)
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path, "3Dircadb1")
    dataset = open_dataset(archive)
    volume, label = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(volume.array, image)
    np.testing.assert_array_equal(label.array, merged(masks, dict(dataset.labels)))


def test_what_a_case_annotates(tmp_path, image, masks):
    """No folder, no annotation; but a liver without a lesion folder has no lesion."""
    write_patient(tmp_path / "3Dircadb1.1", image, masks)
    fewer = {"liver": masks["liver"], "leftkidney": masks["bone"]}
    write_patient(tmp_path / "3Dircadb1.5", image, fewer)
    write_patient(tmp_path / "3Dircadb1.10", image, {"spleen": masks["bone"]})
    dataset = open_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == ["ircadb_01", "ircadb_05", "ircadb_10"]
    assert dataset.cases[1].annotated == {"liver", "liver lesion", "left kidney"}
    assert dataset.cases[2].annotated == {"spleen"}
    assert not dataset.cases[1].annotates("bone")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("liver", "liver"),
        ("livertumor", "liver lesion"),
        ("livertumors", "liver lesion"),
        ("livertumor07", "liver lesion"),
        ("liverkyste", "liver cyst"),
        ("rightsurrenalGland", "right adrenal gland"),
        ("lymphNodes", "lymph nodes"),
        ("Stones", "stones"),
        # Neither is a lesion of the liver.
        ("tumor", "adrenal tumor"),
        ("metastasectomie", "metastasectomy cavity"),
        # Neither tells the side.
        ("kidneys", "kidneys"),
        ("lungs", "lungs"),
        ("hepaticartery2", "hepaticartery"),
    ],
)
def test_names_are_unified(written, name):
    assert ircadb.unified(written) == name


def test_values_do_not_depend_on_the_selection(tmp_path, image, masks):
    write_patient(tmp_path / "a/3Dircadb1.1", image, masks)
    write_patient(tmp_path / "b/3Dircadb1.2", image, {"bone": masks["bone"]})
    all_labels = open_dataset(tmp_path / "a").labels
    assert open_dataset(tmp_path / "b").labels == {"bone": all_labels["bone"]}


def test_one_patient_and_hidden_files(tmp_path, image, masks):
    root = write_patient(tmp_path / "3Dircadb1.17", image, masks)
    (root / "MASKS_DICOM" / ".DS_Store").write_bytes(b"")
    (root / "MASKS_DICOM" / "liver" / "._image_0").write_bytes(b"")
    dataset = open_dataset(root)
    assert [case.name for case in dataset.cases] == ["ircadb_17"]
    load_case(dataset.cases[0])


def test_a_damaged_zip_file(tmp_path, image, masks):
    root = write_patient(tmp_path / "3Dircadb1.1", image, masks, zipped=True)
    (root / "MASKS_DICOM.zip").write_bytes(b"PK rubbish")
    with pytest.raises(DatasetError, match=r"MASKS_DICOM\.zip: the zip file is damaged"):
        open_dataset(tmp_path)


def test_nobody_else_claims_it(tmp_path, image, masks):
    root = write_patient(tmp_path / "3Dircadb1.1", image, masks)
    for folder in (tmp_path, root):
        claimed = next(name for name, layout in LAYOUTS.items() if layout.recognises(folder))
        assert claimed == "3d-ircadb"


def test_not_ircadb(tmp_path):
    (tmp_path / "3Dircadb1.1/PATIENT_DICOM").mkdir(parents=True)
    assert not ircadb.recognises(tmp_path)
    with pytest.raises(DatasetError, match="no case of the layout"):
        ircadb.read(tmp_path)
