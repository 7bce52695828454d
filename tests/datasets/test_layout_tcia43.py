"""The labels of Gibson et al. with DICOM and converted scans, boxes computed by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_writer import write_series
from leanseg.datasets import LAYOUTS, load_case, open_dataset
from leanseg.datasets.layouts import tcia43
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes import Volume, reorient, write_volume

HEADER = (
    "id,publisher,data set,original_id,extent_ant,extent_post,extent_left,extent_right,"
    "extent_inf,extent_sup\n"
)
# As the series of NIH are stored: rows from the back, slices from the head ("LAI").
STORED = np.array([[-0.8, 0, 0, 200], [0, 0.8, 0, -190], [0, 0, -1.0, -50], [0, 0, 0, 1.0]])
SHAPE = (10, 9, 8)
FILE_VALUES = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
# What the dataset makes of them, written out by hand.
VALUES = np.array([0, 1, 0, 3, 4, 5, 6, 7, 0, 0, 0, 2, 0, 0, 8])


def nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.integers(-500, 500, SHAPE).astype(np.int16)


@pytest.fixture
def label(rng) -> np.ndarray:
    return rng.choice(FILE_VALUES, SHAPE).astype(np.uint8)


def write_case(root: Path, number: int, image, label, affine=None) -> None:
    write_series(root / f"Pancreas-CT/PANCREAS_{number:04d}/study/series", image, STORED)
    where = root / "label_tcia_multiorgan" / f"label{number:04d}.nii.gz"
    nifti(where, label, np.eye(4) if affine is None else affine)


def test_dicom_comes_back_uncropped(tmp_path, image, label):
    write_case(tmp_path, 2, image, label)
    write_case(tmp_path, 16, image, label)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "tcia43"
    assert list(dataset.labels.items()) == [
        ("spleen", 1),
        ("pancreas", 2),
        ("left kidney", 3),
        ("gallbladder", 4),
        ("esophagus", 5),
        ("liver", 6),
        ("stomach", 7),
        ("duodenum", 8),
    ]
    assert [case.name for case in dataset.cases] == ["tcia_0002", "tcia_0016"]
    assert dict(dataset.cases[1].metadata) == {
        "patient": "tcia 0016",
        "number": "14",
        "fold": "2",
    }
    volume, labels = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(volume.array, image)
    np.testing.assert_allclose(volume.affine, STORED, atol=1e-9)
    np.testing.assert_array_equal(labels.array, VALUES[label])


@pytest.mark.parametrize("affine", [np.eye(4), STORED])
def test_boxes_are_applied(tmp_path, image, label, affine):
    """Columns from the patient's right, rows from the front, slices from the feet, half open."""
    write_case(tmp_path, 2, image, label, affine)
    (tmp_path / "cropping.csv").write_text(
        HEADER + "1,TCIA,Pancreas-CT,2,2,6,1,9,3,8\n44,Synapse,Beyond,1,0,5,0,5,0,5\n,,,,,,,,,\n"
    )
    case = open_dataset(tmp_path).cases[0]
    volume, labels = load_case(case)
    # Rows are stored from the back and slices from the head: 9 - 6 = 3 to 7, 8 - 8 = 0 to 5.
    box = np.s_[1:9, 3:7, 0:5]
    np.testing.assert_array_equal(volume.array, image[box])
    np.testing.assert_array_equal(labels.array, VALUES[label][box])
    corner = STORED @ [1, 3, 0, 1]
    np.testing.assert_allclose(volume.affine[:3, 3], corner[:3], atol=1e-9)
    np.testing.assert_array_equal(labels.affine, volume.affine)


def test_converted_scans_of_both_sources(tmp_path, rng, image, label):
    btcv = rng.integers(-500, 500, SHAPE).astype(np.int16)
    nifti(tmp_path / "image_tcia_multiorgan/img0002.nii.gz", image, STORED)
    nifti(tmp_path / "label_tcia_multiorgan/label0002.nii.gz", label, STORED)
    nifti(tmp_path / "RawData/Training/img/img0002.nii.gz", btcv, np.diag([1.0, 1, 3, 1]))
    nifti(tmp_path / "label_btcv_multiorgan/label0002.nii.gz", label, np.diag([1.0, 1, 3, 1]))
    dataset = open_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == ["btcv_0002", "tcia_0002"]
    assert dict(dataset.cases[0].metadata) == {"patient": "btcv 0002"}
    for case, expected in zip(dataset.cases, (btcv, image), strict=True):
        volume, labels = load_case(case)
        np.testing.assert_array_equal(volume.array, expected)
        np.testing.assert_array_equal(labels.array, VALUES[label])


def test_patient_25(tmp_path, image, label):
    write_case(tmp_path, 2, image, label)
    nifti(tmp_path / "label_tcia_multiorgan/label0025.nii.gz", label, np.eye(4))
    assert len(open_dataset(tmp_path).cases) == 1
    write_case(tmp_path, 25, image, label)
    cases = open_dataset(tmp_path).cases
    assert [case.metadata["patient"] for case in cases] == ["tcia 0002", "tcia 0002"]
    assert cases[1].metadata["number"] == "22"
    nifti(tmp_path / "label_tcia_multiorgan/label0003.nii.gz", label, np.eye(4))
    with pytest.raises(DatasetError, match=r"label0003.* its scan PANCREAS_0003 is not in"):
        open_dataset(tmp_path)


def test_the_43_cases():
    assert len(tcia43.TCIA_CASES) == 43


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,publisher\n", r"no row for the case of .*label0002"),
        (HEADER + "1,TCIA,Pancreas-CT,2,2,6,1,9,3,x\n", "line 2 has no whole number"),
        (HEADER + "1,TCIA,Pancreas-CT,2,2,6\n", "line 2 has not the 10 cells"),
        (HEADER + "1,TCIA,Pancreas-CT,3,2,6,1,9,3,8\n", r"no row for the case of .*label0002"),
    ],
)
def test_damaged_boxes(tmp_path, image, label, content, message):
    write_case(tmp_path, 2, image, label)
    (tmp_path / "cropping.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize("ends", ["2,10,1,9,3,8", "6,2,1,9,3,8", "2,6,1,9,-1,8"])
def test_boxes_beyond_the_scan(tmp_path, image, label, ends):
    write_case(tmp_path, 2, image, label)
    (tmp_path / "cropping.csv").write_text(f"{HEADER}1,TCIA,Pancreas-CT,2,{ends}\n")
    with pytest.raises(DatasetError, match=r"leaves the \d+ voxels there"):
        load_case(open_dataset(tmp_path).cases[0])


CODES = [a + b + c for a in "LR" for b in "AP" for c in "IS"]


@given(st.sampled_from(CODES), st.permutations(range(3)), st.data())
def test_a_box_is_the_same_place_in_every_orientation(tmp_path_factory, codes, axes, data):
    """Cut after turning equals turned after cutting."""
    folder = tmp_path_factory.mktemp("scan")
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    lps = Volume(array, np.array([[-1.0, 0, 0, 7], [0, -2, 0, 5], [0, 0, 3, -9], [0, 0, 0, 1]]))
    extent = {}
    for axis, size in zip(("LR", "AP", "IS"), array.shape, strict=True):
        low = data.draw(st.integers(0, size - 1))
        extent[axis] = [low, data.draw(st.integers(low + 1, size))]
    turned = reorient(lps, "".join(codes[axis] for axis in axes))
    write_volume(folder / "scan.nii", turned)
    found = read_source(VolumeSource(folder / "scan.nii", "companion", {"extent": extent}))
    back = reorient(found, "LPS")
    (i, ii), (j, jj), (k, kk) = extent["LR"], extent["AP"], extent["IS"]
    np.testing.assert_array_equal(back.array, array[i:ii, j:jj, k:kk])
    np.testing.assert_allclose(back.affine[:3, 3], (lps.affine @ [i, j, k, 1])[:3])


def test_nobody_else_claims_it(tmp_path, image, label):
    write_case(tmp_path, 2, image, label)
    (tmp_path / ".DS_Store").write_bytes(b"")
    claimed = next(name for name, layout in LAYOUTS.items() if layout.recognises(tmp_path))
    assert claimed == "tcia43"


def test_not_of_gibson(tmp_path):
    (tmp_path / "labels").mkdir()
    assert not tcia43.recognises(tmp_path)
    with pytest.raises(DatasetError, match="no case of the layout"):
        tcia43.read(tmp_path)
