"""Every attribute that changes values or places: honoured as pydicom does, or refused by name."""

from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from dicom_writer import compress, enhanced_dataset, set_pixels, volume_datasets, write_slices
from leanseg.datasets.readers.slices import read_slice
from leanseg.errors import FileFormatError, LeansegError
from leanseg.inference.inputs import collect_tasks
from leanseg.volumes import read_volume
from leanseg.volumes.dicom import find_series
from plans import slices

from .conftest import AFFINE, scan_array

SLOPE, INTERCEPT, TYPE = "RescaleSlope", "RescaleIntercept", "RescaleType"


def put(**elements):
    """Set elements of one slice; those that are None are deleted."""

    def change(dataset):
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                vr = pydicom.datadict.dictionary_VR(keyword).split(" ")[0]
                dataset[keyword] = pydicom.DataElement(keyword, vr, value, validation_mode=0)

    return change


def signed(dataset):
    set_pixels(dataset, dataset.pixel_array.astype("<i2"))


def written(folder, change, which=(2,), modality="CT", n=5):
    """A series of unsigned slices of which some are changed."""
    array = scan_array((6, 5, n)) + 100
    datasets = volume_datasets(array, AFFINE, modality=modality, dtype="<u2")
    for k in which:
        change(datasets[k])
    write_slices(folder, datasets)
    return folder


ALL = range(5)
LUT = Dataset()
LUT.LUTDescriptor, LUT.ModalityLUTType, LUT.LUTData = [2, 0, 16], "HU", bytes(4)
UNITS = "has no RescaleSlope and RescaleIntercept, which"


@pytest.mark.parametrize(
    ("change", "which", "modality", "message"),
    [
        (put(**{SLOPE: None, INTERCEPT: None}), (2,), "CT", f"IM0002: {UNITS} other slices have"),
        (put(**{SLOPE: "", INTERCEPT: ""}), (2,), "CT", f"IM0002: {UNITS} other slices have"),
        (put(**{SLOPE: None, INTERCEPT: None}), (2,), "MR", f"IM0002: {UNITS} other slices have"),
        (put(**{SLOPE: None, INTERCEPT: None}), ALL, "CT", f"IM0000: {UNITS} every CT has"),
        (put(**{SLOPE: None}), (2,), "CT", "IM0002: its RescaleSlope is missing"),
        (put(**{INTERCEPT: None}), (2,), "MR", "IM0002: its RescaleIntercept is missing"),
        (put(**{INTERCEPT: None}), ALL, "MR", "IM0000: its RescaleIntercept is missing"),
        (put(**{SLOPE: ["1", "2"]}), (2,), "CT", "IM0002: its RescaleSlope is missing or makes no"),
        (put(**{SLOPE: "1e30"}), (2,), "CT", "IM0002: its RescaleSlope is missing or makes no"),
        (put(**{INTERCEPT: "inf"}), (2,), "CT", "IM0002: its RescaleIntercept is missing or"),
        (put(**{TYPE: "US"}), (2,), "CT", "IM0002: its RescaleType is US, so its values are no Ho"),
        (put(**{TYPE: "OD"}), ALL, "CT", "IM0000: its RescaleType is OD"),
        (put(ModalityLUTSequence=Sequence([LUT])), (2,), "CT", "its ModalityLUTSequence is"),
        (put(ModalityLUTSequence=Sequence([LUT])), (2,), "MR", "its ModalityLUTSequence is"),
        (put(PixelIntensityRelationship="LOG"), ALL, "MR", "PixelIntensityRelationship is LOG"),
        (put(PixelRepresentation=2), (2,), "CT", "IM0002: its PixelRepresentation is 2"),
        (put(PixelRepresentation=None), (2,), "CT", "its PixelRepresentation is missing"),
        (put(HighBit=7), (2,), "CT", "IM0002: its HighBit is 7"),
        (put(HighBit=15, BitsStored=12), ALL, "CT", "pixel data lie below HighBit 15"),
        (put(HighBit=16), (2,), "CT", "IM0002: its HighBit is 16"),
        (put(BitsAllocated=1), ALL, "CT", "BitsAllocated or BitsStored make no sense"),
        (put(PhotometricInterpretation=None), ALL, "MR", "its PhotometricInterpretation is miss"),
        (put(PhotometricInterpretation="PALETTE COLOR"), ALL, "MR", "pixels are colours"),
        (put(SamplesPerPixel=3), ALL, "MR", "pixels are colours"),
        (put(FrameOfReferenceUID="1.2.3"), (2, 3), "CT", "IM0002: has another FrameOfReferenceUID"),
        (put(FrameOfReferenceUID=None), (2,), "CT", "IM0002: has another FrameOfReferenceUID"),
        (put(SeriesInstanceUID=None), (4,), "CT", "IM0004: has no SeriesInstanceUID; it may be"),
        (put(BitsStored=0), (2,), "CT", "BitsAllocated or BitsStored make no sense"),
        (put(**{SLOPE: None, INTERCEPT: None}), ALL, "PT", f"IM0000: {UNITS} every PT has"),
        (put(ImageOrientationPatient=[1, 0, 0, 0.005, 1, 0]), ALL, "CT", "its ImageOrientation"),
        (put(Modality="MR"), (2,), "CT", "IM0002: has another Modality than IM0000"),
        (put(ImagePositionPatient=None), (4,), "CT", "IM0004: its ImagePositionPatient is missing"),
        (
            put(ImagePositionPatient=None, ImageOrientationPatient=None),
            (4,),
            "CT",
            "IM0004: its ImagePositionPatient is missing",
        ),
        (put(PixelSpacing=None, ImagerPixelSpacing=[1, 1]), ALL, "CT", "its PixelSpacing is miss"),
        (put(Columns=5), ALL, "CT", "has 60 bytes of pixel data where its header says 50"),
        (
            put(ConcatenationUID="1.2.3", InConcatenationTotalNumber=3),
            (1, 2),
            "CT",
            "IM0001: its InConcatenationTotalNumber is 3, but 2 of these parts",
        ),
    ],
)  # fmt: skip
def test_what_would_be_guessed_is_refused(tmp_path, change, which, modality, message):
    with pytest.raises(LeansegError, match=message) as caught:
        read_volume(written(tmp_path / "scan", change, which, modality))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "which", "modality"),
    [
        (put(**{SLOPE: None, INTERCEPT: None}), ALL, "MR"),
        (put(**{TYPE: "US"}), ALL, "MR"),
        (put(**{TYPE: "HU"}), ALL, "CT"),
        (put(HighBit=11, BitsStored=12), ALL, "CT"),
        (put(**{SLOPE: "2.5", INTERCEPT: "-31.25"}), (2,), "MR"),
        (put(**{SLOPE: "-1"}), ALL, "MR"),
        (signed, (1, 3), "CT"),
        (put(WindowCenter="40", WindowWidth="80", VOILUTFunction="SIGMOID"), ALL, "CT"),
        (put(SmallestImagePixelValue=0, LargestImagePixelValue=1), ALL, "CT"),
        (put(PresentationLUTShape="INVERSE"), ALL, "MR"),
        (put(ModalityLUTSequence=Sequence([])), ALL, "CT"),
        (put(SliceThickness="0.1", SpacingBetweenSlices="99"), ALL, "CT"),
        (put(ImagerPixelSpacing=[9, 9]), ALL, "CT"),
        (put(PatientPosition="FFP"), ALL, "CT"),
        (put(ConcatenationUID="1.2.3", InConcatenationTotalNumber=5), ALL, "CT"),
    ],
)  # fmt: skip
def test_values_and_places_are_those_of_pydicom(tmp_path, change, which, modality):
    folder = written(tmp_path / "scan", change, which, modality)
    volume = read_volume(folder)
    datasets = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    theirs = np.stack([apply_modality_lut(d.pixel_array, d).T for d in datasets], axis=-1)
    np.testing.assert_array_equal(volume.array, theirs)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("dtype", ["<u2", "<i2", "u1", "<i4"])
def test_byte_order_and_encoding(tmp_path, syntax, dtype):
    big = syntax == ExplicitVRBigEndian
    array = scan_array((6, 5, 4)) % 200 if dtype == "u1" else scan_array((6, 5, 4)) + 1000
    options = {"modality": "MR", "dtype": dtype, "intercept": 0}
    for k, dataset in enumerate(volume_datasets(array, AFFINE, **options)):
        dataset.file_meta.TransferSyntaxUID = syntax
        order = np.dtype(dtype).newbyteorder(">" if big else "<")
        dataset.PixelData = np.ascontiguousarray(array[:, :, k].T).astype(order).tobytes()
        dataset["PixelData"].VR = "OB" if dtype == "u1" else "OW"
        dataset.save_as(tmp_path / f"{k}", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path).array, array)


def enhanced(tmp_path, change, modality="CT"):
    dataset = enhanced_dataset(volume_datasets(scan_array((6, 5, 4)), AFFINE, modality=modality))
    change(dataset)
    dataset.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    return tmp_path / "scan.dcm"


def transformation(dataset, number):
    return dataset.PerFrameFunctionalGroupsSequence[number].PixelValueTransformationSequence[0]


def shared_rescale(dataset, intercept):
    """A transformation that all frames share, beside those of the frames."""
    shared = copy.deepcopy(transformation(dataset, 0))
    shared.RescaleIntercept = intercept
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [shared]


def only_shared(dataset):
    shared_rescale(dataset, "-1024")
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PixelValueTransformationSequence


@pytest.mark.parametrize("change", [lambda d: shared_rescale(d, "-1024"), only_shared])
def test_enhanced_frames_share_a_rescale(tmp_path, change):
    np.testing.assert_array_equal(
        read_volume(enhanced(tmp_path, change)).array, scan_array((6, 5, 4))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: shared_rescale(d, "0"), "frame 1: its RescaleIntercept is missing or makes no"),
        (lambda d: d.PerFrameFunctionalGroupsSequence[2].pop("PixelValueTransformationSequence"),
         f"frame 3: {UNITS} other slices have"),
        (lambda d: transformation(d, 1).pop(SLOPE), "frame 2: its RescaleSlope is missing"),
        (lambda d: setattr(transformation(d, 1), TYPE, "US"), "frame 2: its RescaleType is US"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "says 4 frames, describes 3"),
        (lambda d: d.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence"),
         "frame 1: its PixelSpacing is missing"),
    ],
)  # fmt: skip
def test_enhanced_frames_that_contradict_are_refused(tmp_path, change, message):
    with pytest.raises(LeansegError, match=message):
        read_volume(enhanced(tmp_path, change))


def test_a_concatenation_is_joined(tmp_path):
    """An image split over two files, as PS3.3, C.7.6.16.1.3 does it."""
    slices = volume_datasets(scan_array((6, 5, 6)), AFFINE)
    for number, part in enumerate((slices[:4], slices[4:]), start=1):
        dataset = enhanced_dataset(part)
        dataset.ConcatenationUID = "1.2.3"
        dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = number, 2
        dataset.save_as(tmp_path / f"{number}", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan_array((6, 5, 6)))
    (tmp_path / "2").unlink()
    with pytest.raises(FileFormatError, match="InConcatenationTotalNumber is 2, but 1 of these"):
        read_volume(tmp_path)


def test_more_frames_stored_than_declared_are_refused(tmp_path):
    datasets = [compress(d, RLELossless) for d in volume_datasets(scan_array(), AFFINE)]
    frame = next(pydicom.encaps.generate_frames(datasets[1].PixelData, number_of_frames=1))
    datasets[1].PixelData = pydicom.encaps.encapsulate([frame, frame])
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(FileFormatError, match="IM0001: its NumberOfFrames is 1, but 2 are stored"):
        read_volume(tmp_path / "scan")


def test_zeros_may_pad_pixels(tmp_path):
    def padded(dataset):
        dataset.PixelData += bytes(40)

    np.testing.assert_array_equal(
        read_volume(written(tmp_path / "scan", padded)).array, scan_array((6, 5, 5)) + 100
    )


def float_pixels(dataset):
    dataset.FloatPixelData = dataset.pixel_array.astype("<f4").tobytes()
    del dataset.PixelData


def test_messages_tell_the_truth(tmp_path):
    with pytest.raises(FileFormatError, match="IM0002: has FloatPixelData instead of PixelData"):
        read_volume(written(tmp_path / "float", float_pixels))
    words = Dataset()
    words.add_new(0x00110010, "LO", "PRIVATE")
    words.file_meta = pydicom.dataset.FileMetaDataset()
    words.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    words.save_as(tmp_path / "words.dcm", enforce_file_format=False)
    content = bytes(128) + b"DICM" + (tmp_path / "words.dcm").read_bytes()
    (tmp_path / "words.dcm").write_bytes(content)
    with pytest.raises(FileFormatError, match="has neither SOPClassUID nor Modality nor Rows"):
        find_series(tmp_path / "words.dcm")


@pytest.mark.parametrize("keywords", [("SOPClassUID",), ("SOPClassUID", "Modality")])
@pytest.mark.parametrize("bare", [False, True])
def test_files_without_class_or_preamble_are_read(tmp_path, keywords, bare):
    """With Modality gone too, they are a scan by their positions, of MR for all that is known."""
    folder = written(tmp_path / "scan", put(**dict.fromkeys(keywords)), ALL, "MR")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        if bare:
            del dataset.file_meta
            dataset.preamble = None
            dataset.save_as(file, implicit_vr=True, little_endian=True)
        else:
            dataset.file_meta.MediaStorageSOPClassUID = ""
            dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(folder).array, scan_array((6, 5, 5)) + 100)


@pytest.mark.parametrize("name", ["DICOMDIR", "index.dcm"])
def test_a_dicomdir_stands_for_its_folder(tmp_path, name):
    files = FileSet()
    for dataset in volume_datasets(scan_array(), AFFINE):
        files.add(dataset)
    files.write(tmp_path / "cd")
    index = (tmp_path / "cd" / "DICOMDIR").rename(tmp_path / "cd" / name)
    np.testing.assert_array_equal(read_volume(index).array, scan_array())
    np.testing.assert_array_equal(read_volume(tmp_path / "cd").array, scan_array())
    assert find_series(index).path == tmp_path / "cd"
    (task,) = collect_tasks([index], slices())
    assert (task.case.name, task.case.images[0].path) == ("cd", tmp_path / "cd")


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({SLOPE: "1", INTERCEPT: "0"}, 7),
        ({SLOPE: "2", INTERCEPT: "-4"}, 10),
        ({SLOPE: None, INTERCEPT: None}, 7),
        ({SLOPE: "0.5", INTERCEPT: "0"}, "grey values 0 to 65535"),
        ({SLOPE: "1", INTERCEPT: "-9"}, "grey values 0 to 65535"),
        ({SLOPE: None, INTERCEPT: "1"}, "RescaleSlope or RescaleIntercept makes no sense"),
        ({SLOPE: "1", INTERCEPT: "0", "Rows": 99}, "of 1188 bytes of pixel data"),
        ({SLOPE: "1", INTERCEPT: "0", "SamplesPerPixel": 1, "HighBit": 3}, "its HighBit is 3"),
    ],
)
def test_masks_are_rescaled_as_they_say(tmp_path, elements, expected):
    (dataset, *_) = volume_datasets(np.full((6, 5, 2), 7), AFFINE, dtype="<u2", intercept=0)
    put(**elements)(dataset)
    dataset.save_as(tmp_path / "mask", enforce_file_format=True)
    if isinstance(expected, int):
        assert (read_slice(tmp_path / "mask") == expected).all()
        return
    with pytest.raises(FileFormatError, match=expected):
        read_slice(tmp_path / "mask")
