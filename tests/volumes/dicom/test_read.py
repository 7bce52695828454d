"""Series in: a phantom comes back as written, and as SimpleITK reads it."""

from __future__ import annotations

import os
import shutil
import tracemalloc
import zipfile

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dicom_writer import volume_datasets, write_series, write_slices
from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes import read_volume
from leanseg.volumes.dicom import find_series, is_dicom

from .conftest import itk_series, scan_array

numbers = st.integers


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.tuples(numbers(2, 9), numbers(2, 9), numbers(2, 9)),
    spacing=st.tuples(*[st.floats(0.2, 6)] * 3),
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    origin=st.tuples(*[st.floats(-900, 900)] * 3),
    slope=st.sampled_from([1, 2, 0.5, 0.0137, 3.25]),
    intercept=st.sampled_from([0, -1024, -1000, 17.5]),
    dtype=st.sampled_from(["<i2", "<u2"]),
    seed=numbers(0, 999),
)
def test_any_grid_is_read_as_written_and_as_simpleitk_reads_it(
    tmp_path_factory, shape, spacing, turn, origin, slope, intercept, dtype, seed
):
    folder = tmp_path_factory.mktemp("series")
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, 2000, shape)
    array = stored * slope + intercept
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    files = write_series(
        folder, array, affine, slope=slope, intercept=intercept, dtype=dtype, rng=rng, modality="MR"
    )
    volume = read_volume(folder)
    # 16 characters of a decimal string hold positions to 1e-9 mm and directions to 1e-12.
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    np.testing.assert_allclose(volume.array, array, rtol=1e-6, atol=1e-3)
    assert volume.array.dtype == (np.int16 if slope in (1, 2) and intercept != 17.5 else np.float32)
    assert len(files) == shape[2]
    theirs, grid = itk_series(folder)
    np.testing.assert_allclose(volume.array, theirs, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(volume.affine, grid, atol=1e-5)


def test_names_depth_and_other_files_do_not_matter(tmp_path, array, affine, rng):
    folder = tmp_path / "größe"
    names = ["a/b/{}", "c/{}", "IM.{}.1", "x{}", "{}.IMA"]
    for number, dataset in enumerate(volume_datasets(array, affine)):
        file = folder / names[number].format(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(file, enforce_file_format=True)
    (folder / "readme").write_text("no scan " * 40)
    (folder / "notes.txt").write_text("no scan")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 99)
    (folder / ".hidden").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "done").touch()
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(volume.affine, affine)
    assert volume.path == folder
    assert is_dicom(folder)


# Without preamble and header nothing tells the byte order, so there is no sixth combination.
@pytest.mark.parametrize(
    ("form", "preamble"),
    [
        *(("explicit", True), ("implicit", True), ("big endian", True)),
        *(("explicit", False), ("implicit", False)),
    ],
)
def test_files_with_and_without_preamble(tmp_path, array, affine, form, preamble):
    implicit, little = form == "implicit", form != "big endian"
    (tmp_path / "scan").mkdir()
    for number, dataset in enumerate(volume_datasets(array, affine)):
        file = tmp_path / "scan" / f"{number}"
        if preamble:
            dataset.file_meta.TransferSyntaxUID = {
                "explicit": pydicom.uid.ExplicitVRLittleEndian,
                "implicit": pydicom.uid.ImplicitVRLittleEndian,
                "big endian": pydicom.uid.ExplicitVRBigEndian,
            }[form]
            if not little:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
            pydicom.dcmwrite(
                file, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=True
            )
        else:
            del dataset.file_meta
            dataset.save_as(file, implicit_vr=implicit, little_endian=True)
            assert file.read_bytes()[128:132] != b"DICM"
    assert is_dicom(tmp_path / "scan")
    volume = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(volume.affine, affine)


def test_zip_file(tmp_path, array, affine):
    files = write_series(tmp_path / "scan", array, affine)
    target = tmp_path / "scan.zip"
    with zipfile.ZipFile(target, "w") as opened:
        for file in files:
            opened.write(file, f"deep/er/{file.name}")
    assert is_dicom(target)
    volume = read_volume(target)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.path == target
    inventory = find_series(target)
    assert inventory.series[0].files[0] == target / "deep" / "er" / "IM0000"
    np.testing.assert_array_equal(read_volume(target / "deep").array, array)


SAME_SERIES = {"series_uid": "1.2.3", "frame_uid": "1.2.4"}


def test_slope_and_intercept_are_those_of_each_slice(tmp_path, array, affine):
    datasets = [
        volume_datasets(array, affine, slope=1 + 0.25 * k, intercept=k - 1024, **SAME_SERIES)[k]
        for k in range(array.shape[2])
    ]
    folder = tmp_path / "scan"
    write_slices(folder, datasets)
    volume = read_volume(folder)
    expected = np.stack(
        [d.pixel_array.T * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets], -1
    )
    np.testing.assert_allclose(volume.array, expected, rtol=1e-6)
    assert volume.array.dtype == np.float32
    assert find_series(folder).series[0].rescale == (
        "differs between slices (5 pairs of slope and intercept)"
    )


def test_the_step_is_measured_and_the_thickness_is_not_believed(tmp_path, array, affine):
    write_series(tmp_path / "scan", array, affine, thickness_mm=9)
    (series,) = find_series(tmp_path / "scan").series
    assert (series.thickness_mm, series.spacing_mm[2]) == (9, 2.5)
    assert read_volume(tmp_path / "scan").spacing_mm[2] == 2.5


def test_memory_stays_near_one_scan(tmp_path):
    array = scan_array((128, 128, 60))
    write_series(tmp_path / "scan", array, np.diag([-1.0, -1.0, 2.0, 1.0]))
    read_volume(tmp_path / "scan")
    tracemalloc.start()
    read_volume(tmp_path / "scan")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Headers and the slices in flight come on top of the voxels.
    assert peak < 1.6 * array.nbytes + (2 << 20)


def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path, array, affine):
    write_series(tmp_path / "scan", array, affine)
    os.mkfifo(tmp_path / "scan" / "pipe")
    (tmp_path / "scan" / "nowhere").symlink_to(tmp_path / "gone")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, array)


def test_headers_are_parsed_once_however_often_they_are_asked_for(tmp_path, array, affine):
    files = write_series(tmp_path / "scan", array, affine)
    for file in files:  # long enough ago for the clock of a file system
        os.utime(file, ns=(10**18, 10**18))
    first = find_series(tmp_path / "scan")
    assert find_series(tmp_path / "scan") is first
    changed = pydicom.dcmread(files[2])
    changed.SeriesDescription = "other"
    changed.save_as(files[2])
    assert find_series(tmp_path / "scan") is not first
    files[1].unlink()
    (series,) = find_series(tmp_path / "scan").series
    assert len(series.files) == 4


def test_slices_stand_in_order_with_what_refers_to_them(tmp_path, array, affine, rng):
    write_series(tmp_path / "scan", array, affine, rng=rng)
    (series,) = find_series(tmp_path / "scan").series
    headers = [frame.file.header for frame in series.stack().frames]
    assert [h.ImagePositionPatient[2] for h in headers] == [-300 + 2.5 * k for k in range(5)]
    assert all(h.PatientName == "Doe^Jane" and "PixelData" not in h for h in headers)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in series.files]
    assert uids == [h.SOPInstanceUID for h in headers]


def test_what_a_series_says_of_itself(tmp_path, array, affine):
    write_series(tmp_path / "scan", array, affine)
    inventory = find_series(tmp_path / "scan")
    (series,) = inventory.series
    assert inventory.skipped == ()
    assert series.name == "series 2 (CT, axial, 5 slices)"
    assert (series.number, series.description, series.modality) == (2, "axial", "CT")
    assert (series.shape, series.orientation, series.kind) == ((7, 6, 5), "LPS", "volume")
    np.testing.assert_allclose(series.spacing_mm, (0.8, 0.7, 2.5))
    np.testing.assert_array_equal(series.affine, affine)
    assert series.transfer_syntax == "Explicit VR Little Endian"
    assert series.rescale == "1 x stored value -1024"
    assert (series.phases, series.missing, series.tilt_degrees) == ((), (), 0)
    assert (series.notes, series.problem) == ((), None)
    assert "Doe" not in repr(series)
    assert "Doe" not in repr(inventory)


def test_other_files_have_no_series_to_choose(tmp_path):
    from leanseg.volumes import Volume, write_volume

    path = tmp_path / "scan.nii.gz"
    write_volume(path, Volume(scan_array(), np.eye(4)))
    assert read_volume(path, modality="CT", fill_missing=True, series=None).shape == (7, 6, 5)
    with pytest.raises(FileFormatError, match="not DICOM, so there is no series '3' to choose"):
        read_volume(path, series="3")


def test_missing_slices_among_rounded_positions(tmp_path, affine):
    array = scan_array((3, 3, 90))
    affine[2, 2] = 0.625
    datasets = volume_datasets(array, affine)
    for dataset in datasets:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, f"{z:.1f}"]
    write_slices(tmp_path / "scan", datasets[:40] + datasets[60:])
    (series,) = find_series(tmp_path / "scan").series
    assert len(series.missing) == 20
    assert series.shape == (3, 3, 90)


@pytest.mark.parametrize("gone", [[4], [3, 4], [1, 7], [1, 3, 5]])
def test_missing_slices_are_named_and_filled_only_on_request(tmp_path, affine, gone):
    array = scan_array((5, 4, 9))
    datasets = volume_datasets(array, affine)
    write_slices(tmp_path / "scan", [d for k, d in enumerate(datasets) if k not in gone])
    (series,) = find_series(tmp_path / "scan").series
    names = tuple(f"slice {k + 1} (z = {-300 + 2.5 * k:g} mm)" for k in gone)
    assert series.missing == names
    assert series.shape == (5, 4, 9)
    with pytest.raises(GeometryError) as caught:
        read_volume(tmp_path / "scan")
    assert all(name in str(caught.value) for name in names)
    assert "of 9 slices" in str(caught.value)
    volume = read_volume(tmp_path / "scan", fill_missing=True)
    assert f"{len(gone)} slices are missing and were interpolated" in volume.notes
    np.testing.assert_allclose(volume.affine, affine, atol=1e-12)
    kept = [k for k in range(9) if k not in gone]
    np.testing.assert_array_equal(volume.array[:, :, kept], array[:, :, kept])
    for k in gone:
        below = max(place for place in kept if place < k)
        above = min(place for place in kept if place > k)
        weight = (k - below) / (above - below)
        between = array[:, :, below] * (1 - weight) + array[:, :, above] * weight
        np.testing.assert_allclose(volume.array[:, :, k], between, atol=0.51)


def test_copies_of_slices_are_dropped(tmp_path, array, affine):
    files = write_series(tmp_path / "scan", array, affine, **SAME_SERIES)
    for file in files[1:3]:
        shutil.copy(file, file.with_name(f"copy of {file.name}"))
    again = volume_datasets(array, affine, **SAME_SERIES)
    again[4].save_as(tmp_path / "scan" / "sent twice.dcm", enforce_file_format=True)
    (series,) = find_series(tmp_path / "scan").series
    assert series.notes == ("identical copies of slices left out: 3",)
    volume = read_volume(tmp_path / "scan")
    assert volume.notes == series.notes
    np.testing.assert_array_equal(volume.array, array)


def test_different_slices_in_one_place_are_refused(tmp_path, array, affine):
    datasets = volume_datasets(array, affine, **SAME_SERIES)
    other = volume_datasets(array + 1, affine, **SAME_SERIES)[2]
    write_slices(tmp_path / "scan", [*datasets, other])
    with pytest.raises(GeometryError, match=r"IM0002 and IM0005 lie in .*z = -295 mm"):
        read_volume(tmp_path / "scan")


def uneven(datasets, k, by_mm):
    x, y, z = datasets[k].ImagePositionPatient
    datasets[k].ImagePositionPatient = [x, y, z + by_mm]
    return datasets


@pytest.mark.parametrize("by_mm", [0.3, 1.0, -0.7])
def test_uneven_slices_are_refused(tmp_path, array, affine, by_mm):
    write_slices(tmp_path / "scan", uneven(volume_datasets(array, affine), 2, by_mm))
    with pytest.raises(GeometryError, match=r"not evenly spaced \("):
        read_volume(tmp_path / "scan")


def test_rounded_positions_are_even(tmp_path, affine):
    array = scan_array((3, 3, 60))
    affine[2, 2] = 0.625
    datasets = volume_datasets(array, affine)
    for dataset in datasets:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, f"{z:.1f}"]
    write_slices(tmp_path / "scan", datasets)
    volume = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, array)
    assert abs(volume.spacing_mm[2] - 0.625) < 0.1 / 59
    (series,) = find_series(tmp_path / "scan").series
    assert series.notes[0].startswith("slices lie up to 0.0")


def test_two_scans_of_different_step_in_one_series_are_refused(tmp_path, affine):
    array = scan_array((3, 3, 12))
    datasets = volume_datasets(array, affine)
    for k in range(6, 12):
        uneven(datasets, k, (k - 5) * 1.25)
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(GeometryError, match="not evenly spaced"):
        read_volume(tmp_path / "scan", fill_missing=True)
