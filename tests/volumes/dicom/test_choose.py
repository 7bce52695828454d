"""Several series in one folder: which one is read, and what is said when none or many fit."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_writer import volume_datasets, write_series, write_slices
from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes import read_volume
from leanseg.volumes.dicom import choose_series, find_series

from .conftest import AFFINE, scan_array

LONG, SHORT, OTHER = (scan_array((4, 3, n), seed=n) for n in (9, 6, 7))


@pytest.fixture
def study(tmp_path):
    """Two CT series, an MR series and a localizer, all of one patient, file names mixed up."""
    common = {"study_uid": "1.2.3", "frame_uid": "1.2.4"}
    folder = tmp_path / "study"
    write_series(folder / "a", LONG, AFFINE, series_number=2, description="Thin 1.0", **common)
    write_series(folder / "a/b", SHORT, AFFINE, series_number=3, description="Thick 5.0", **common)
    write_series(
        folder / "c", OTHER, AFFINE, series_number=4, description="T1", modality="MR", **common
    )
    scouts = volume_datasets(scan_array((4, 3, 12)), AFFINE, series_number=1, **common)
    for scout in scouts:
        scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slices(folder, scouts, pattern="scout{}")
    return folder


@pytest.mark.parametrize(
    ("wanted", "array"),
    [("3", SHORT), (2, LONG), ("T1", OTHER), ("t1", OTHER), ("thick", SHORT), ("thin 1.0", LONG)],
)
def test_a_series_is_chosen_by_number_or_description(study, wanted, array):
    np.testing.assert_array_equal(read_volume(study, series=wanted).array, array)


def test_a_series_is_chosen_by_uid(study):
    inventory = find_series(study)
    for number, array in ((2, LONG), (3, SHORT), (4, OTHER)):
        (uid,) = [series.uid for series in inventory.series if series.number == number]
        np.testing.assert_array_equal(read_volume(study, series=uid).array, array)


def test_the_scan_with_most_slices_is_taken(study):
    assert choose_series(find_series(study)).number == 2
    np.testing.assert_array_equal(read_volume(study).array, LONG)


def test_a_modality_narrows_the_choice(study):
    np.testing.assert_array_equal(read_volume(study, modality="mr").array, OTHER)
    with pytest.raises(FileFormatError, match=r"holds no PT scan but series 2 \(CT, Thin 1.0"):
        read_volume(study, modality="PT")


def test_all_series_are_listed_with_their_kind(study):
    inventory = find_series(study)
    assert [(s.number, s.kind, len(s.files)) for s in inventory.series] == [
        (1, "localizer", 12),
        (2, "volume", 9),
        (3, "volume", 6),
        (4, "volume", 7),
    ]
    assert inventory.series[0].name == "series 1 (CT, axial, 12 files, localizer)"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("9", r"no series matches '9'; it has series 1 \(CT, axial, 12 files, localizer\), series"),
        ("th", r"2 series match 'th': series 2 .* series 3 .*choose one by another property"),
        ("", "no series matches ''"),
        ("1", "series 1 .* is no scan .an overview picture to plan the scan on, not the scan"),
    ],
)
def test_a_choice_that_fits_nothing_or_too_much(study, wanted, message):
    with pytest.raises(FileFormatError, match=message):
        read_volume(study, series=wanted)


def test_two_that_fit_equally_well_are_listed(tmp_path):
    for number in (5, 6):
        write_series(
            tmp_path / "study" / f"{number}", LONG, AFFINE, series_number=number, study_uid="1.2"
        )
    with pytest.raises(FileFormatError, match=r"2 scans fit equally well; choose one of series 5"):
        read_volume(tmp_path / "study")
    assert read_volume(tmp_path / "study", series="6").shape == (4, 3, 9)


def test_several_patients_are_refused_without_naming_them(tmp_path):
    folder = tmp_path / "archive"
    write_series(folder / "1", LONG, AFFINE, patient="Müller^Zoë", series_number=5)
    write_series(folder / "2", SHORT, AFFINE, patient="Roe^Richard", series_number=6)
    with pytest.raises(FileFormatError, match="holds scans of 2 patients; choose one") as e:
        read_volume(folder)
    assert not any(name in str(e.value) for name in ("Müller", "Zo", "Roe", "Richard", "ID-"))
    np.testing.assert_array_equal(read_volume(folder, series=6).array, SHORT)
    np.testing.assert_array_equal(read_volume(folder / "1").array, LONG)


def test_several_patients_in_one_series_are_refused(tmp_path):
    datasets = volume_datasets(LONG, AFFINE)
    datasets[3].PatientID, datasets[3].PatientName = "ID-77", "Roe^Richard"
    folder = tmp_path / "scan"
    write_slices(folder, datasets)
    with pytest.raises(FileFormatError, match="slices of one series belong to 2 patients") as e:
        read_volume(folder)
    assert not any(name in str(e.value) for name in ("Doe", "Roe", "Richard", "ID-"))


def test_localizers_within_a_series_are_left_out(tmp_path):
    datasets = volume_datasets(LONG, AFFINE)
    datasets[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slices(tmp_path / "scan", datasets)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, LONG[:, :, 1:])
    (series,) = find_series(tmp_path / "scan").series
    assert series.notes == ("files of another kind (localizer) left out: 1",)


def other_kind(kind):
    datasets = volume_datasets(SHORT, AFFINE)
    for dataset in datasets:
        if kind == "secondary capture":
            dataset.SOPClassUID = SecondaryCaptureImageStorage
        elif kind == "contours":
            dataset.Modality, dataset.SOPClassUID = "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3"
            del dataset.PixelData, dataset.Rows
        elif kind == "colour image":
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
        elif kind == "projection":
            del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
        elif kind == "mosaic":
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        elif kind == "report":
            dataset.Modality, dataset.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.22"
            del dataset.PixelData, dataset.Rows
    return datasets


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("secondary capture", "a screenshot or scanned picture"),
        ("contours", "structures drawn on a scan"),
        ("colour image", "pixels are colours"),
        ("projection", "no position in the body"),
        ("mosaic", "convert it with dcm2niix"),
        ("report", "holds no scan .report"),
    ],
)
def test_what_is_no_scan_is_refused_with_the_reason(tmp_path, kind, reason):
    write_slices(tmp_path / "scan", other_kind(kind))
    assert find_series(tmp_path / "scan").series[0].kind == kind
    with pytest.raises(FileFormatError, match=reason):
        read_volume(tmp_path / "scan")
    with pytest.raises(FileFormatError, match="is no scan"):
        read_volume(tmp_path / "scan", series="2")


def test_one_slice_is_no_volume(tmp_path):
    files = write_series(tmp_path / "scan", SHORT, AFFINE)
    with pytest.raises(FileFormatError, match="one slice alone is no volume; give the folder"):
        read_volume(files[2])


def test_series_without_uid_are_told_apart(tmp_path):
    for number, array in ((2, LONG), (3, SHORT)):
        datasets = volume_datasets(array, AFFINE, series_number=number)
        for dataset in datasets:
            dataset.SeriesInstanceUID = dataset.StudyInstanceUID = ""
        write_slices(tmp_path / "scan", datasets, pattern=f"{number}-{{}}")
    assert [s.number for s in find_series(tmp_path / "scan").series] == [2, 3]
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", series=3).array, SHORT)


def test_slices_in_several_directions_are_refused(tmp_path):
    datasets = volume_datasets(LONG, AFFINE)
    for dataset in datasets[5:]:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(GeometryError, match="points in another direction than"):
        read_volume(tmp_path / "scan")
