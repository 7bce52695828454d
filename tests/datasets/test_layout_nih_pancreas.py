"""NIH Pancreas-CT written as it lies: rows from the back, instance numbers from the head."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_writer import volume_datasets, write_slices
from leanseg.datasets import LAYOUTS, load_case, open_dataset
from leanseg.datasets.layouts import nih_pancreas
from leanseg.errors import DatasetError, GeometryError

LABELS = "TCIA_pancreas_labels-02-05-2017"
# x to the left, rows from the back (as these series have), slices from the head.
STORED = np.array([[-0.8, 0, 0, 200], [0, 0.8, 0, -190], [0, 0, -1.0, -50], [0, 0, 0, 1.0]])
# The same grid the usual way round: the index of rows from the front, slices from the feet.
SHAPE = (8, 7, 6)


def grid(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def write_scan(folder: Path, array: np.ndarray, *, ascending: bool = True, rng=None) -> None:
    """A series whose instance numbers run along the third axis of `array`, or against it."""
    datasets = volume_datasets(array, STORED)
    for k, dataset in enumerate(datasets):
        dataset.InstanceNumber = k + 1 if ascending else len(datasets) - k
    write_slices(folder / "11-24-2015-study" / "Pancreas-99667", datasets, rng, "1-{:03d}.dcm")


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.integers(-500, 500, SHAPE).astype(np.int16)


@pytest.fixture
def pancreas(rng) -> np.ndarray:
    return rng.integers(0, 2, SHAPE).astype(np.uint8)


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-0.8, -0.8, 1.0, 1.0])])
def test_dicom_comes_back(tmp_path, rng, image, pancreas, ascending, affine):
    """Label voxel (i, j, k) is column i, row j, instance k + 1, whatever its header says."""
    write_scan(tmp_path / "Pancreas-CT/PANCREAS_0001", image, ascending=ascending, rng=rng)
    stored = pancreas if ascending else pancreas[:, :, ::-1]
    grid(stored, affine, tmp_path / LABELS / "label0001.nii.gz")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.labels, dataset.channels) == (
        "nih-pancreas",
        {"pancreas": 1},
        ("CT",),
    )
    (case,) = dataset.cases
    assert (case.name, case.metadata) == ("PANCREAS_0001", {"patient": "0001"})
    volume, label = load_case(case, dataset)
    np.testing.assert_array_equal(volume.array, image)
    np.testing.assert_allclose(volume.affine, STORED, atol=1e-9)
    np.testing.assert_array_equal(label.array, pancreas)
    np.testing.assert_array_equal(label.affine, volume.affine)


def test_a_label_that_agrees_is_believed(tmp_path, image, pancreas):
    """A re-export in another orientation of the same grid; instance numbers do not matter."""
    write_scan(tmp_path / "PANCREAS_0003", image, ascending=False)
    turned = nib.as_closest_canonical(nib.Nifti1Image(pancreas, STORED))
    (tmp_path / LABELS).mkdir()
    nib.save(turned, tmp_path / LABELS / "label0003.nii.gz")
    volume, label = load_case(open_dataset(tmp_path).cases[0])
    np.testing.assert_array_equal(label.array, pancreas)
    np.testing.assert_array_equal(volume.array, image)


def test_converted_scans(tmp_path, image, pancreas):
    """Directions of both headers are believed, the label's origin is not."""
    scan = nib.as_closest_canonical(nib.Nifti1Image(image, STORED))
    (tmp_path / "data").mkdir()
    nib.save(scan, tmp_path / "data/PANCREAS_0005.nii.gz")
    no_origin = STORED.copy()
    no_origin[:3, 3] = 0
    grid(pancreas, no_origin, tmp_path / LABELS / "label0005.nii.gz")
    volume, label = load_case(open_dataset(tmp_path).cases[0])
    np.testing.assert_array_equal(volume.array, np.asarray(scan.dataobj))
    np.testing.assert_array_equal(label.array, pancreas[::-1, :, ::-1])
    np.testing.assert_array_equal(label.affine, volume.affine)


def test_withdrawn_patients_are_left_out(tmp_path, image, pancreas):
    for number in (2, 25, 70):
        write_scan(tmp_path / f"Pancreas-CT/PANCREAS_{number:04d}", image)
        grid(pancreas, np.eye(4), tmp_path / LABELS / f"label{number:04d}.nii.gz")
    assert [case.name for case in open_dataset(tmp_path).cases] == ["PANCREAS_0002"]


def test_labels_of_withdrawn_patients_need_no_scan(tmp_path, image, pancreas):
    write_scan(tmp_path / "Pancreas-CT/PANCREAS_0002", image)
    for number in (2, 25, 70):
        grid(pancreas, np.eye(4), tmp_path / LABELS / f"label{number:04d}.nii.gz")
    assert len(open_dataset(tmp_path).cases) == 1
    grid(pancreas, np.eye(4), tmp_path / LABELS / "label0004.nii.gz")
    with pytest.raises(DatasetError, match=r"label0004\.nii\.gz: no scan PANCREAS_0004"):
        open_dataset(tmp_path)


def test_scans_alone_and_hidden_files(tmp_path, image):
    write_scan(tmp_path / "PANCREAS_0001", image)
    (tmp_path / "._PANCREAS_0002").write_bytes(b"")
    dataset = open_dataset(tmp_path)
    assert [case.label_parts for case in dataset.cases] == [()]


def test_a_label_of_another_size(tmp_path, image, pancreas):
    write_scan(tmp_path / "PANCREAS_0001", image)
    grid(pancreas[:, :, :4], np.eye(4), tmp_path / LABELS / "label0001.nii.gz")
    case = open_dataset(tmp_path).cases[0]
    with pytest.raises(GeometryError, match=r"has 4 slices, but its scan .* has 6"):
        load_case(case)
    grid(pancreas[:6], np.eye(4), tmp_path / LABELS / "label0001.nii.gz")
    with pytest.raises(GeometryError, match=r"has shape \(6, 7, 6\), but its scan"):
        load_case(case)


def test_nobody_else_claims_it(tmp_path, image, pancreas):
    write_scan(tmp_path / "Pancreas-CT/PANCREAS_0001", image)
    grid(pancreas, np.eye(4), tmp_path / LABELS / "label0001.nii.gz")
    claimed = next(name for name, layout in LAYOUTS.items() if layout.recognises(tmp_path))
    assert claimed == "nih-pancreas"


def test_converted_scans_beside_other_masks_are_not_claimed(tmp_path, image, pancreas):
    grid(image, STORED, tmp_path / "scans/PANCREAS_0001.nii.gz")
    grid(pancreas, STORED, tmp_path / "masks/PANCREAS_0001.nii.gz")
    assert not nih_pancreas.recognises(tmp_path)
    grid(image, STORED, tmp_path / "b/imagesTr/PANCREAS_0001_0000.nii.gz")
    assert not nih_pancreas.recognises(tmp_path / "b/imagesTr")


def test_not_pancreas_ct(tmp_path):
    (tmp_path / "PANCREAS_1").mkdir()
    assert not nih_pancreas.recognises(tmp_path)
    with pytest.raises(DatasetError, match="no case of the layout"):
        nih_pancreas.read(tmp_path)
