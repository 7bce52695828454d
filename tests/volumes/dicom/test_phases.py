"""Series that image the same places more than once, and enhanced files that hold many frames."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_writer import compress, enhanced_dataset, volume_datasets, write_slices
from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes import read_volume
from leanseg.volumes.dicom import find_series

from .conftest import AFFINE, itk_volume, scan_array


def phases_of(values, keyword, modality="MR", n=3):
    """Arrays and datasets of several phases of one series, told apart by an element."""
    arrays = [scan_array((5, 4, 6), seed) for seed in range(n)]
    uids = {"series_uid": "1.2.3.4", "study_uid": "1.2.3", "frame_uid": "1.2.5"}
    datasets = []
    for array, value in zip(arrays, values, strict=True):
        for dataset in volume_datasets(array, AFFINE, modality=modality, **uids):
            if keyword is not None:
                setattr(dataset, keyword, value)
            datasets.append(dataset)
    return arrays, datasets


@pytest.mark.parametrize(
    ("keyword", "values", "names"),
    [
        ("TemporalPositionIdentifier", (1, 2, 10), ("time 1", "time 2", "time 10")),
        ("AcquisitionNumber", (3, 4, 5), ("acquisition 3", "acquisition 4", "acquisition 5")),
        ("TriggerTime", ("0", "95.5", "200"), ("trigger time 0", "trigger time 95.5", "t")),
        ("NominalPercentageOfCardiacPhase", (0.0, 40.0, 75.0), ("cardiac phase 0", "c", "c")),
        ("DiffusionBValue", (0.0, 500.0, 1000.0), ("b-value 0", "b-value 500", "b-value 1000")),
        ("EchoNumbers", (1, 2, 3), ("echo 1", "echo 2", "echo 3")),
        (
            "ImageType",
            (["A", "B", "F"], ["A", "B", "IP"], ["A", "B", "W"]),
            ("image type A\\B\\F", "image type A\\B\\IP", "i"),
        ),
    ],
)
def test_phases_are_told_apart(tmp_path, rng, keyword, values, names):
    arrays, datasets = phases_of(values, keyword)
    write_slices(tmp_path / "scan", datasets, rng)
    (series,) = find_series(tmp_path / "scan").series
    assert len(series.phases) == 3
    assert all(got.startswith(name) for got, name in zip(series.phases, names, strict=True))
    for number, array in enumerate(arrays, start=1):
        volume = read_volume(tmp_path / "scan", phase=number)
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_array_equal(volume.affine, AFFINE)
    with pytest.raises(GeometryError, match=r"has 3 phases; choose one by number \(1: .*, 2: .*3:"):
        read_volume(tmp_path / "scan")
    with pytest.raises(GeometryError, match="has no phase 4; it has 1: "):
        read_volume(tmp_path / "scan", phase=4)
    with pytest.raises(GeometryError, match="choose one by number"):
        series.stack()
    assert len(series.stack(phase=2).frames) == 6


def test_phases_told_apart_by_two_elements_together(tmp_path, rng):
    arrays, datasets = phases_of((1, 1, 2, 2), "TemporalPositionIdentifier", n=4)
    for number, dataset in enumerate(datasets):
        dataset.EchoNumbers = 1 + number // 6 % 2
    write_slices(tmp_path / "scan", datasets, rng)
    (series,) = find_series(tmp_path / "scan").series
    assert series.phases[1] == "time 1, echo 2"
    for number, array in enumerate(arrays, start=1):
        np.testing.assert_array_equal(read_volume(tmp_path / "scan", phase=number).array, array)


def test_numbers_that_vary_within_a_scan_are_no_phases(tmp_path, array, affine):
    datasets = volume_datasets(array, affine)
    for number, dataset in enumerate(datasets):
        dataset.AcquisitionNumber, dataset.TriggerTime = number // 2, str(number)
    write_slices(tmp_path / "scan", datasets)
    assert find_series(tmp_path / "scan").series[0].phases == ()
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, array)


def test_nothing_that_tells_phases_apart(tmp_path):
    _, datasets = phases_of((1, 2, 3), None)
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(
        GeometryError, match="no phase, echo or acquisition number tells them apart"
    ):
        read_volume(tmp_path / "scan")


def test_one_phase_with_a_missing_slice_leaves_the_others_readable(tmp_path):
    arrays, datasets = phases_of((1, 2, 3), "TemporalPositionIdentifier")
    del datasets[8]
    write_slices(tmp_path / "scan", datasets)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", phase=1).array, arrays[0])
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", phase=3).array, arrays[2])
    with pytest.raises(GeometryError, match="slice 3"):
        read_volume(tmp_path / "scan", phase=2)


def test_one_phase_of_a_single_slice_leaves_the_others_readable(tmp_path):
    arrays, datasets = phases_of((1, 2, 3), "TemporalPositionIdentifier")
    write_slices(tmp_path / "scan", datasets[:13])
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", phase=1).array, arrays[0])
    with pytest.raises(GeometryError, match="time 3: has one slice alone"):
        read_volume(tmp_path / "scan", phase=3)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_enhanced_file_as_simpleitk_reads_it(tmp_path, modality):
    array = scan_array()
    dataset = enhanced_dataset(volume_datasets(array, AFFINE, modality=modality, thickness_mm=7))
    path = tmp_path / "enhanced.dcm"
    dataset.save_as(path, enforce_file_format=True)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    import SimpleITK as sitk  # noqa: N813

    theirs, grid = itk_volume(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(volume.array, theirs)
    np.testing.assert_allclose(volume.affine, grid, atol=1e-9)
    (series,) = find_series(path).series
    assert (series.shape, series.thickness_mm, series.files) == ((7, 6, 5), 7, (path,))
    assert {frame.file.path for frame in series.stack().frames} == {path}
    np.testing.assert_array_equal(read_volume(tmp_path).array, array)


def test_frames_of_an_enhanced_file_in_any_order(tmp_path, rng):
    array = scan_array((40, 36, 6))
    datasets = volume_datasets(array, AFFINE)
    dataset = enhanced_dataset([datasets[k] for k in rng.permutation(6)])
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.dcm").array, array)


def test_rescale_of_each_frame(tmp_path):
    array = scan_array()
    datasets = [
        volume_datasets(array, AFFINE, slope=1 + 0.5 * k, intercept=-k)[k] for k in range(5)
    ]
    dataset = enhanced_dataset(datasets)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    expected = np.stack([d.pixel_array.T * (1 + 0.5 * k) - k for k, d in enumerate(datasets)], -1)
    np.testing.assert_allclose(read_volume(tmp_path / "a.dcm").array, expected)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("fragments", [1, 3])
def test_compressed_enhanced_file(tmp_path, syntax, fragments):
    from pydicom.encaps import encapsulate, generate_frames

    array = scan_array((40, 36, 5))
    dataset = compress(enhanced_dataset(volume_datasets(array, AFFINE)), syntax)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=5))
    dataset.PixelData = encapsulate(frames, fragments_per_frame=fragments)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.dcm").array, array)


@pytest.mark.parametrize("dimension", ["TemporalPositionIndex", "ContrastBolusAgentPhase"])
def test_phases_of_an_enhanced_file(tmp_path, dimension):
    arrays, datasets = phases_of((1, 1, 1), "AcquisitionNumber")
    indices = [(phase,) for phase in (1, 2, 3) for _ in range(6)]
    order = np.random.default_rng(0).permutation(len(datasets))
    dataset = enhanced_dataset(
        [datasets[n] for n in order], (dimension,), [indices[n] for n in order]
    )
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    (series,) = find_series(tmp_path / "a.dcm").series
    assert len(series.phases) == 3
    assert series.phases[1].endswith(" 2")
    for number, array in enumerate(arrays, start=1):
        volume = read_volume(tmp_path / "a.dcm", phase=number)
        np.testing.assert_array_equal(volume.array, array)


def test_legacy_converted_enhanced_ct_of_highdicom(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    array = scan_array((16, 16, 5))
    slices = volume_datasets(array, AFFINE)
    for dataset in slices:
        dataset.PatientPosition, dataset.KVP = "HFS", "120"
        dataset.AcquisitionNumber, dataset.SoftwareVersions = 1, "1"
    converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid="1.2.3.4",
        series_number=9,
        sop_instance_uid="1.2.3.4.5",
        instance_number=1,
    )
    converted.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path / "a.dcm")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(volume.affine, AFFINE)


def test_an_enhanced_file_that_contradicts_itself(tmp_path):
    whole = enhanced_dataset(volume_datasets(scan_array(), AFFINE))
    fewer = copy.deepcopy(whole)
    del fewer.PerFrameFunctionalGroupsSequence[-1]
    fewer.save_as(tmp_path / "fewer.dcm", enforce_file_format=True)
    with pytest.raises(FileFormatError, match="says 5 frames, describes 4"):
        read_volume(tmp_path / "fewer.dcm")
    nowhere = copy.deepcopy(whole)
    del nowhere.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    nowhere.save_as(tmp_path / "nowhere.dcm", enforce_file_format=True)
    with pytest.raises(GeometryError, match="its ImagePositionPatient is missing"):
        read_volume(tmp_path / "nowhere.dcm")
