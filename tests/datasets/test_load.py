"""Cases written with nibabel, loaded, and every way in which a case can be wrong."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import Case, Dataset, load_case, open_dataset
from leanseg.errors import DatasetError, GeometryError, LeansegError

AFFINE = np.array([[-0.7, 0, 0, 90], [0, -0.7, 0, 60], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
SHAPE = (6, 5, 4)


def save(path: Path, array, affine=AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def dataset_of(case: Case, channels=("CT",)) -> Dataset:
    return Dataset([case], {"organ": 1}, channels)


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.integers(-1000, 1000, SHAPE).astype(np.int16)


@pytest.fixture
def label(rng) -> np.ndarray:
    return rng.integers(0, 3, SHAPE).astype(np.uint8)


def load(tmp_path, image, label=None, *, label_affine=AFFINE, channels=("CT",)):
    case = Case(
        save(tmp_path / "image.nii.gz", image),
        None if label is None else save(tmp_path / "label.nii.gz", label, label_affine),
    )
    return load_case(case, dataset_of(case, channels))


def test_image_and_label_come_back(tmp_path, image, label):
    scan, marked = load(tmp_path, image, label)
    np.testing.assert_array_equal(scan.array, image)
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert marked is not None
    assert marked.array.dtype == np.uint8
    np.testing.assert_array_equal(marked.array, label)


def test_case_without_label(tmp_path, image):
    assert load(tmp_path, image)[1] is None


@pytest.mark.parametrize(("high", "expected"), [(255, np.uint8), (256, np.uint16)])
def test_float_labels_with_whole_values_are_cast(tmp_path, image, high, expected):
    label = np.zeros(SHAPE, np.float32)
    label[0, 0, 0] = high
    marked = load(tmp_path, image, label)[1]
    assert marked is not None
    assert marked.array.dtype == expected
    assert marked.array[0, 0, 0] == high


def test_four_dimensional_image_has_channels_last(tmp_path, rng, label):
    array = rng.normal(size=(*SHAPE, 4)).astype(np.float32)
    scan, _ = load(tmp_path, array, label, channels=("a", "b", "c", "d"))
    np.testing.assert_array_equal(scan.array, array)


def test_channel_files_are_stacked_in_order(tmp_path, rng):
    arrays = [rng.normal(size=SHAPE).astype(np.float32) for _ in range(3)]
    files = [save(tmp_path / f"x_{n:04d}.nii", array) for n, array in enumerate(arrays)]
    case = Case(files, name="x")
    scan, _ = load_case(case, dataset_of(case, ("a", "b", "c")))
    for n, array in enumerate(arrays):
        np.testing.assert_array_equal(scan.array[..., n], array)


def test_channel_files_must_share_a_grid(tmp_path, image):
    moved = AFFINE.copy()
    moved[2, 3] += 5
    case = Case([save(tmp_path / "x_0000.nii", image), save(tmp_path / "x_0001.nii", image, moved)])
    with pytest.raises(GeometryError, match=r"x_0000\.nii and .*x_0001\.nii .* 5 mm apart"):
        load_case(case, dataset_of(case, ("a", "b")))


def test_shapes_that_differ_are_both_named(tmp_path, image, label):
    with pytest.raises(GeometryError) as error:
        load(tmp_path, image, label[:, :, :3])
    for part in ("image.nii.gz", "label.nii.gz", "(6, 5, 4)", "(6, 5, 3)"):
        assert part in str(error.value)


def test_grid_that_differs_is_measured_in_mm(tmp_path, image, label):
    moved = AFFINE.copy()
    moved[:3, 3] += (3, 4, 0)
    with pytest.raises(GeometryError, match=r"image\.nii\.gz and .*label\.nii\.gz .* 5 mm apart"):
        load(tmp_path, image, label, label_affine=moved)
    flipped = AFFINE.copy()
    flipped[:3, 0] *= -1
    # Read the other way round it lies beside the scan, moved by the extent: 5 voxels * 0.7 mm.
    with pytest.raises(GeometryError, match=r"3\.5 mm apart"):
        load(tmp_path, image, label, label_affine=flipped)


def test_rounding_of_headers_is_tolerated(tmp_path, image, label):
    nudged = AFFINE + np.eye(4)[:, :] * 1e-5
    nudged[3, 3] = 1
    assert load(tmp_path, image, label, label_affine=nudged)[1] is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_not_finite(tmp_path, image, label, bad):
    broken = image.astype(np.float32)
    broken[1, 2, 3] = bad
    with pytest.raises(LeansegError, match=r"image\.nii\.gz.*NaN"):
        load(tmp_path, broken, label)


@pytest.mark.parametrize(
    ("value", "dtype", "sentence"),
    [
        (1.5, np.float32, r"label 1\.5 is not a whole number"),
        (np.nan, np.float32, "label nan is not a whole number"),
        (-1, np.int16, "labels run from -1 to"),
        (70000, np.int32, "labels run from 0 to 70000"),
    ],
)
def test_labels_that_are_no_labels(tmp_path, image, value, dtype, sentence):
    label = np.zeros(SHAPE, dtype)
    label[2, 2, 2] = value
    with pytest.raises(DatasetError, match=rf"label\.nii\.gz: {sentence}"):
        load(tmp_path, image, label)


def test_number_of_channels_must_be_the_datasets(tmp_path, rng):
    with pytest.raises(DatasetError, match=r"has 2 channel\(s\), but the dataset names 1 \(CT\)"):
        load(tmp_path, rng.normal(size=(*SHAPE, 2)))


def test_label_with_channels(tmp_path, image, rng):
    with pytest.raises(DatasetError, match="one value per voxel"):
        load(tmp_path, image, rng.integers(0, 2, (*SHAPE, 2)).astype(np.uint8))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("task", "shape"),
    [("Task101_SarcomaCT", None), ("Task102_BrainTumour", (240, 240, 155, 4))],
)
def test_real_cases_load(shared_data, task, shape):
    dataset = open_dataset(shared_data / task)
    case = dataset.cases[0]
    image, label = load_case(case, dataset)
    oracle = nib.load(case.images[0].path)
    assert image.array.shape == oracle.shape == (shape or oracle.shape)
    assert label is not None
    assert set(np.unique(label.array)) <= {0, *dataset.labels.values()}
