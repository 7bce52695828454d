"""The fixed copy: labels where SimpleITK puts them, scans byte by byte, the original untouched."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from leanseg.datasets import LabelPart, VolumeSource, open_dataset
from leanseg.datasets.check import check
from leanseg.datasets.check.fix import write_fixed_copy
from leanseg.errors import LeansegError
from leanseg.volumes import read_volume


def fixed(dataset, folder, **options):
    return write_fixed_copy(dataset, check(dataset), folder, **options)


def state(folder):
    return {
        path.relative_to(folder): (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime)
        for path in folder.rglob("*")
        if path.is_file()
    }


def coarser(patient):
    """The label on an oblique, coarser grid: turned about the z axis, every second voxel."""
    angle = 0.1
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    patient.label = patient.label[::2, ::2]
    affine = turn @ patient.label_affine
    affine[:3, :2] *= 2
    patient.label_affine = affine


def test_labels_come_into_the_scans_grid_through_world_space(toy, tmp_path):
    coarser(toy["c"])
    dataset = toy.write()
    before = state(toy.folder)
    done: list[str] = []
    report = fixed(dataset, tmp_path / "copy", on_case=done.append)
    assert state(toy.folder) == before
    assert done == list("abcdef")
    assert report.may_train
    assert list(report.kept) == ["c"]
    copy = open_dataset(tmp_path / "copy")
    assert (copy.layout, dict(copy.labels), copy.channels) == ("plain", toy.labels, ("CT",))
    result = check(copy)
    assert result.findings == ()
    # SimpleITK resamples in physical space, from the files themselves.
    expected = sitk.Resample(
        sitk.ReadImage(str(toy.label("c"))),
        sitk.ReadImage(str(toy.image("c"))),
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
    )
    written = sitk.ReadImage(str(copy.case("c").label_path))
    differ = sitk.GetArrayFromImage(expected) != sitk.GetArrayFromImage(written)
    # Places exactly between two voxels may go either way.
    assert differ.mean() < 1e-3
    assert (sitk.GetArrayFromImage(written) > 0).sum() > 400
    assert report.kept["c"] == pytest.approx(1, abs=0.15)


def test_what_fits_is_copied_unchanged(toy, tmp_path):
    coarser(toy["c"])
    dataset = toy.write()
    fixed(dataset, tmp_path / "copy")
    for name in "abcdef":
        original = toy.image(name)
        assert (tmp_path / f"copy/images/{name}.nii.gz").read_bytes() == original.read_bytes()
        if name != "c":
            label = read_volume(tmp_path / f"copy/labels/{name}.nii.gz")
            assert np.array_equal(label.array, toy[name].label)
            assert np.array_equal(label.affine, read_volume(original).affine)


def test_a_label_stored_along_other_axes_keeps_every_voxel(toy, tmp_path):
    flipped = np.flip(toy["c"].label, (0, 2))
    affine = toy["c"].label_affine
    moved = affine.copy()
    for axis in (0, 2):
        moved[:3, 3] += affine[:3, axis] * (flipped.shape[axis] - 1)
        moved[:3, axis] *= -1
    expected = toy["c"].label
    toy["c"].label, toy["c"].label_affine = flipped, moved
    report = fixed(toy.write(), tmp_path / "copy")
    assert report.kept == {}
    assert np.array_equal(read_volume(tmp_path / "copy/labels/c.nii.gz").array, expected)


def test_partial_annotation_patients_and_parts_survive(toy, tmp_path, saved):
    dataset = toy.write()
    masks = []
    for value in (1, 2):
        mask = (toy["c"].label == value).astype(np.uint8)
        path = saved(toy.folder / f"masks/{value}.nii.gz", mask, toy["c"].label_affine)
        masks.append(LabelPart(VolumeSource(path), value=value))
    case = replace(
        dataset.case("c"),
        label_parts=tuple(masks),
        annotated=frozenset({"liver", "spleen"}),
        metadata={"patient": "7"},
    )
    cases = tuple(case if old.name == "c" else old for old in dataset.cases)
    fixed(replace(dataset, cases=cases), tmp_path / "copy")
    copy = open_dataset(tmp_path / "copy")
    assert copy.case("c").annotated == {"liver", "spleen"}
    assert copy.case("a").annotated is None
    assert copy.case("c").metadata["patient"] == "7"
    label = toy["c"].label
    expected = np.where(label <= 2, label, 0)
    assert np.array_equal(read_volume(copy.case("c").label_path).array, expected)


def test_cases_that_cannot_be_read_are_left_out_and_named(toy, tmp_path):
    coarser(toy["c"])
    toy["d"].label[0, 0, 0] = 99
    dataset = toy.write()
    toy.image("b").write_bytes(b"broken")
    report = fixed(dataset, tmp_path / "copy")
    assert not report.may_train
    assert list(report.left_out) == ["b"]
    assert {finding.kind for finding in report.unfixed} == {"file-unreadable", "label-undeclared"}
    copy = open_dataset(tmp_path / "copy")
    assert [case.name for case in copy.cases] == ["a", "c", "d", "e", "f"]
    assert (tmp_path / "copy/labels/b.nii.gz").exists() is False


def test_a_label_from_elsewhere_is_not_forced_onto_the_scan(toy, tmp_path):
    toy["c"].label_affine[:3, 3] += 5000
    report = fixed(toy.write(), tmp_path / "copy")
    assert list(report.left_out) == ["c"]
    assert "none of its labels lies within the scan" in report.left_out["c"]
    assert not report.may_train
    assert not (tmp_path / "copy/images/c.nii.gz").exists()


def test_several_channels_and_other_formats(toy, tmp_path):
    dataset = toy.write()
    cases = []
    for case in dataset.cases:
        second = toy.folder / f"second/{case.name}.mha"
        second.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.ReadImage(str(toy.image(case.name))) + 1, str(second))
        turned = VolumeSource.of(read_volume(second).with_array(read_volume(second).array[::-1]))
        cases.append(replace(case, images=[case.images[0], second, turned]))
    fixed(replace(dataset, cases=tuple(cases), channels=("CT", "b", "c")), tmp_path / "copy")
    copy = open_dataset(tmp_path / "copy")
    assert copy.channels == ("CT", "b", "c")
    first, second, third = (read_volume(source.path).array for source in copy.case("a").images)
    assert [source.path.name for source in copy.case("a").images] == [
        "a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz"
    ]  # fmt: skip
    assert np.array_equal(second, first + 1)
    assert np.array_equal(third, second[::-1])


@pytest.mark.parametrize("place", ["full", "inside", "file", "itself"])
def test_nothing_is_written_where_something_is(toy, tmp_path, place):
    dataset = toy.write()
    folder = {
        "full": tmp_path / "full",
        "inside": toy.folder / "fixed",
        "file": tmp_path / "file",
        "itself": toy.folder,
    }[place]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = state(tmp_path)
    with pytest.raises(LeansegError, match="choose a"):
        fixed(dataset, folder)
    assert state(tmp_path) == before


def test_an_interrupted_copy_leaves_nothing(toy, tmp_path):
    def stop(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fixed(toy.write(), tmp_path / "copy", on_case=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_the_copy_says_what_its_labels_are(toy, tmp_path):
    fixed(toy.write(), tmp_path / "copy")
    listing = json.loads((tmp_path / "copy/labels.json").read_text())
    assert listing["labels"] == {str(v): n for n, v in toy.labels.items()}
    assert listing["channels"] == ["CT"]
    header = nib.load(tmp_path / "copy/labels/a.nii.gz").header
    assert header.get_data_dtype() == np.uint8
