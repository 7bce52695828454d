"""Cases from files: what training is fed has the very bits that prediction computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import Case
from leanseg.errors import DatasetError, GeometryError
from leanseg.frames import ArrayCache, CasePreparer, Place, ScanSource, ScanView, cases
from leanseg.losses.base import IGNORED
from leanseg.plan import HounsfieldWindow
from leanseg.volumes import read_volume
from plans import slices

AFFINE = np.array([[0.1, -0.9, 0, 7], [0.9, 0.1, 0, -40], [0, 0, -3, 200], [0, 0, 0, 1.0]])


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def case(tmp_path: Path, rng) -> Case:
    """An oblique scan of odd size with two channels, and a label map with values 1, 2, 3."""
    image = rng.normal(0, 300, size=(37, 45, 23, 2)).astype(np.int16)
    label = np.zeros((37, 45, 23), dtype=np.uint8)
    label[10:20, 10:30, 6:12] = 1
    label[12:16, 12:20, 8:10] = 2
    label[30:34, 30:34, 15] = 3
    return Case(
        write(tmp_path / "image.nii.gz", image), write(tmp_path / "label.nii.gz", label), "case 1"
    )


def preparer(root: Path, **options) -> CasePreparer:
    options = {"window": HounsfieldWindow(), "channels": ("second",), **options}
    plan = slices((32, 40), ("organ",), **options)
    return CasePreparer(plan, {"organ": [1, 2]}, (1,), ArrayCache(root / "cache"))


@pytest.mark.parametrize("scaling", ["minmax", "zscore"])
def test_training_and_prediction_see_the_same_bits(tmp_path: Path, case: Case, scaling) -> None:
    prepared = preparer(tmp_path, scaling=scaling)
    cached = prepared.prepare(case).source
    view = ScanView(read_volume(case.images[0].path), "LPS", ("second",), (1,))
    scan = ScanSource(view, prepared.plan.final)
    assert cached.shape == scan.shape == (32, 40, 23)
    assert cached.region == scan.region
    for start in range(0, 23, 4):
        stop = min(start + 4, 23)
        np.testing.assert_array_equal(cached.planes(start, stop), scan.planes(start, stop))
    place = Place.slice(scan.shape, 7, neighbours=2)
    np.testing.assert_array_equal(cached.read(place), scan.read(place))


def test_labels_keep_their_place(tmp_path: Path, case: Case) -> None:
    """The share of each class is the file's, merged values included and others left out."""
    whole = preparer(tmp_path).prepare(case)
    label = read_volume(case.label_path).array
    assert whole.own_classes.sum() == np.isin(label, (1, 2)).sum()
    assert set(np.unique(whole.classes)) == {0, 1}
    assert whole.classes.shape == (23, 32, 40)
    slices_with_label = np.flatnonzero(np.isin(label, (1, 2)).any(axis=(0, 1)))
    assert np.flatnonzero(whole.own_classes.any(axis=(1, 2))).tolist() == sorted(
        22 - slices_with_label
    )


def test_ignored_voxels_are_told_from_labels(tmp_path: Path, case: Case) -> None:
    plain = preparer(tmp_path).prepare(case)
    ignoring = replace(preparer(tmp_path), ignored_values=(3,)).prepare(case)
    label = read_volume(case.label_path).array
    assert (ignoring.own_classes == ignoring.ignored).sum() == (label == 3).sum()
    # One voxel file, two entries of the cache: 3 is background where nobody says otherwise.
    assert plain.ignored is None
    np.testing.assert_array_equal(
        np.where(ignoring.classes == ignoring.ignored, 0, ignoring.classes), plain.classes
    )
    slices_with_ignored = (ignoring.classes == ignoring.ignored).any(axis=(1, 2))
    assert slices_with_ignored.sum() == 1
    for prepared in (plain, ignoring):
        np.testing.assert_array_equal(prepared.labelled_slices, plain.classes.any(axis=(1, 2)))
        np.testing.assert_array_equal(prepared.foreground(prepared.classes), plain.classes == 1)
    targets = ignoring.targets(ignoring.classes)
    assert targets.dtype == np.int32
    np.testing.assert_array_equal(targets == 1, plain.classes == 1)
    np.testing.assert_array_equal(targets == IGNORED, ignoring.classes == 2)
    np.testing.assert_array_equal(plain.targets(plain.classes), plain.classes)


def test_a_batch_can_be_written_to(tmp_path: Path, case: Case) -> None:
    source = preparer(tmp_path).prepare(case).source
    batch = source.planes(0, 4)
    batch += 1
    assert source.planes(0, 4).max() <= 1 + 1e-6


def test_the_second_time_nothing_is_read(tmp_path: Path, case: Case, monkeypatch) -> None:
    first = preparer(tmp_path).prepare(case)
    monkeypatch.setattr(cases, "load_case", lambda case: pytest.fail("read again"))
    second = preparer(tmp_path).prepare(case)
    np.testing.assert_array_equal(first.source.planes(0, 23), second.source.planes(0, 23))
    with pytest.raises(pytest.fail.Exception):
        preparer(tmp_path, scaling="zscore").prepare(case)


def test_a_changed_scan_is_prepared_again(tmp_path: Path, case: Case) -> None:
    before = np.array(preparer(tmp_path).prepare(case).source.planes(0, 23))
    changed = read_volume(case.images[0].path).array.copy()
    changed[..., 1] = 0
    write(case.images[0].path, changed)
    after = preparer(tmp_path).prepare(case).source.planes(0, 23)
    assert before.any()
    assert not after.any()


def test_channels_in_several_files(tmp_path: Path, case: Case) -> None:
    array = read_volume(case.images[0].path).array
    files = [write(tmp_path / f"c{n}.nii.gz", array[..., n]) for n in range(2)]
    split = Case(files, case.label_parts, "split")
    np.testing.assert_array_equal(
        preparer(tmp_path).prepare(split).source.planes(0, 23),
        preparer(tmp_path).prepare(case).source.planes(0, 23),
    )


def test_a_case_without_label_is_refused(tmp_path: Path, case: Case) -> None:
    with pytest.raises(DatasetError, match="case 1: has no label file"):
        preparer(tmp_path).prepare(Case(case.images, name=case.name))


def test_a_label_on_another_grid_is_refused(tmp_path: Path, case: Case) -> None:
    other = write(tmp_path / "other.nii.gz", np.zeros((37, 45, 22), dtype=np.uint8))
    with pytest.raises(GeometryError, match="different shapes"):
        preparer(tmp_path).prepare(Case(case.images, other, "case 1"))
    assert not list((tmp_path / "cache").rglob("*.npy"))
