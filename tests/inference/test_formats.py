"""Label maps as NIfTI and as DICOM objects: the same voxels whichever is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_writer import write_series
from leanseg.errors import FileFormatError
from leanseg.inference import Model
from leanseg.inference.formats import FORMATS, output_format
from leanseg.inference.inputs import collect_tasks
from leanseg.inference.jobs import predict_all
from leanseg.modelfile import Member, ModelFile, NetworkSpec
from leanseg.volumes import on_grid_of, read_volume
from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct
from leanseg.volumes.dicom.seg_reader import read_dicom_seg
from plans import slices

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.8, 0, 30], [0, 0, 2.5, -60], [0, 0, 0, 1.0]])


@pytest.fixture
def model(known_engine) -> Model:
    """Takes every voxel of the upper half of the grey values for an organ."""
    plan = slices((12, 14), ("liver",))
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=1)
    return Model(ModelFile.of(plan, Member(spec, {})), lambda lanes: {"main": known_engine()})


@pytest.fixture
def scan(tmp_path: Path, rng) -> Path:
    array = rng.integers(-500, 500, (14, 12, 6))
    write_series(tmp_path / "scan", array, AFFINE, rng=rng, patient="Doe^Jane")
    return tmp_path / "scan"


def predicted(model: Model, scan: Path, output: Path, form: str) -> Path:
    (result,) = predict_all(model, collect_tasks([scan], model.plan), output, form=form)
    assert result.status == "done", result.message
    assert result.output.name == f"scan{FORMATS[form].suffix}"
    return result.output


def test_every_format_holds_the_same_voxels(model, scan, tmp_path):
    image = read_volume(scan)
    nifti = read_volume(predicted(model, scan, tmp_path / "out", "nifti"))
    np.testing.assert_allclose(nifti.affine, image.affine, atol=1e-5)
    expected = nifti.array
    assert 0.2 < expected.mean() < 0.8
    for form in ("dicom-seg", "dicom-labelmap"):
        labels, names = read_dicom_seg(predicted(model, scan, tmp_path / "out", form))
        assert names == {"liver": 1}
        np.testing.assert_array_equal(on_grid_of(nifti, labels).array, expected)
    path = predicted(model, scan, tmp_path / "out", "rtstruct")
    labels, names = read_rtstruct(path, image)
    np.testing.assert_array_equal(labels.array, expected)
    assert names == {"liver": 1}
    header = pydicom.dcmread(path)
    assert header.PatientName == "Doe^Jane"


def test_results_of_several_formats_lie_side_by_side(model, scan, tmp_path):
    for form in FORMATS:
        predicted(model, scan, tmp_path / "out", form)
    for form in FORMATS:
        tasks = collect_tasks([scan], model.plan)
        (again,) = predict_all(model, tasks, tmp_path / "out", form=form)
        assert again.status == "skipped"
    assert "Doe" not in (tmp_path / "out/predictions.json").read_text()


def test_dicom_objects_need_a_dicom_scan(model, scan, tmp_path):
    from leanseg.volumes import write_volume

    file = tmp_path / "plain.nii.gz"
    write_volume(file, read_volume(scan))
    (result,) = predict_all(
        model, collect_tasks([file], model.plan), tmp_path / "out", form="dicom-seg"
    )
    assert result.status == "failed"
    assert "plain.nii.gz: is not DICOM" in result.message
    assert not list((tmp_path / "out").glob("plain*")) if (tmp_path / "out").exists() else True


def test_an_unknown_format_is_named():
    with pytest.raises(FileFormatError, match=r"'png'; choose one of nifti, dicom-seg"):
        output_format("png")
