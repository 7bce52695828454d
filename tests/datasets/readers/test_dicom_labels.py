"""DICOM SEG and RTSTRUCT files as label parts of a case."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from dicom_writer import volume_datasets, write_slices
from leanseg.datasets import Case, LabelPart, VolumeSource, load_case
from leanseg.volumes import Volume, write_volume
from leanseg.volumes.dicom import choose_series, find_series
from leanseg.volumes.dicom.rtstruct import write_rtstruct
from leanseg.volumes.dicom.seg import write_dicom_seg

NAMES = {"liver": 1, "spleen": 2, "liver tumour": 3}
WRITERS = {"dicom-seg": write_dicom_seg, "rtstruct": write_rtstruct}


@pytest.fixture
def labelled(tmp_path, rng):
    """A scan as a DICOM series and as NIfTI, and its labels in both formats."""
    labels = rng.integers(0, 4, (12, 10, 5)).astype(np.uint8)
    affine = np.diag([-0.8, -0.9, 2.5, 1.0])
    affine[:3, 3] = 90.0, 110.0, -40.0
    slices = volume_datasets(np.zeros(labels.shape, np.int16), affine)
    write_slices(tmp_path / "ct", slices, rng)
    write_volume(tmp_path / "ct.nii.gz", Volume(np.zeros(labels.shape, np.int16), affine))
    stack = choose_series(find_series(tmp_path / "ct")).stack()
    for name, write in WRITERS.items():
        file = tmp_path / f"{name}.dcm"
        write(file, Volume(labels, affine), NAMES, stack, algorithm=("test", "1"))
    return tmp_path, labels


@pytest.mark.parametrize("reader", WRITERS)
@pytest.mark.parametrize("image", ["ct", "ct.nii.gz"])
def test_a_case_with_dicom_labels(labelled, reader, image):
    folder, labels = labelled
    case = Case(folder / image, folder / f"{reader}.dcm", "a")
    scan, read = load_case(TypeAdapter(Case).validate_python(case.to_json()))
    assert scan.shape == labels.shape
    np.testing.assert_array_equal(read.array, labels)


@pytest.mark.parametrize("reader", WRITERS)
def test_segments_by_name_and_parts_on_top(labelled, reader):
    folder, labels = labelled
    file = folder / f"{reader}.dcm"
    organs = VolumeSource(file, options={"segments": {"Spleen": 4, "Liver": 1}})
    tumour = VolumeSource(file, options={"segments": {"liver tumour": 1}})
    parts = (LabelPart(organs), LabelPart(tumour, value=9))
    _, read = load_case(Case(folder / "ct", parts))
    np.testing.assert_array_equal(read.array, np.array([0, 1, 4, 9])[labels])
