"""DICOM SEG out and in, against highdicom, SimpleITK, dcmqi and dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_writer import RAS_TO_LPS, enhanced_dataset, volume_datasets, write_slices
from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes import Volume, read_volume, reorient
from leanseg.volumes.dicom.seg import write_dicom_seg
from leanseg.volumes.dicom.seg_reader import read_dicom_seg

from .conftest import axial, headers, stack_of, turned

hd = pytest.importorskip("highdicom")

ALGORITHM = ("MoNet", "1.2")
NAMES = {"liver": 1, "left kidney": 2, "liver tumour": 5}
NUMBER_OF = np.array([0, 1, 2, 0, 0, 3], dtype=np.uint8)  # value to binary segment number
QUIET = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(file, labels: Volume, sources, names=NAMES, kind="binary") -> None:
    """A SEG file of labels on a scan with these headers, in any order."""
    write_dicom_seg(file, labels, names, stack_of(sources), kind=kind, algorithm=ALGORITHM)


def random_labels(rng, shape=(13, 11, 6)) -> np.ndarray:
    return rng.choice(np.array([0, 0, 1, 2, 5], dtype=np.uint8), shape)


def highdicom_volume(path, affine, shape) -> np.ndarray:
    """Segment numbers as highdicom places them, on the grid (i, j, k) of `affine` (RAS)."""
    volume = hd.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    to_index = np.linalg.inv(affine) @ RAS_TO_LPS @ volume.affine
    found = np.zeros(shape, dtype=int)
    places = np.argwhere(volume.array > 0)
    index = np.rint(np.c_[places, np.ones(len(places))] @ to_index.T)[:, :3].astype(int)
    found[tuple(index.T)] = volume.array[tuple(places.T)]
    return found


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_highdicom_finds_the_same_voxels_and_meanings(kind, tmp_path, rng):
    affine, labels = axial(), random_labels(rng)
    sources = headers(labels.shape, affine)
    file = tmp_path / "a.dcm"
    shuffled = [sources[n] for n in rng.permutation(len(sources))]
    write(file, Volume(labels, affine), shuffled, kind=kind)
    expected = NUMBER_OF[labels] if kind == "binary" else labels
    np.testing.assert_array_equal(highdicom_volume(file, affine, labels.shape), expected)

    seg = hd.seg.segread(file)
    kidney = seg.get_segment_description(2)
    assert kidney.segment_label == "left kidney"
    assert kidney.segmented_property_category.value == "91723000"
    assert kidney.segmented_property_type.value == "64033007"
    modifier = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert modifier[0].CodeValue == "7771000"
    tumour = seg.get_segment_description(3 if kind == "binary" else 5)
    assert tumour.segmented_property_category.value == "49755003"
    assert tumour.segmented_property_type.value == "108369006"
    assert tumour.anatomic_regions[0].value == "10200004"
    assert tumour.algorithm_type.value == "AUTOMATIC"
    assert (tumour.algorithm_identification.name, tumour.algorithm_identification.version) == (
        ALGORITHM
    )
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg[keyword].value == sources[0][keyword].value
    assert len(seg.PixelData) % 2 == 0
    assert seg.SeriesInstanceUID != sources[0].SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence}
    assert referenced == {source.SOPInstanceUID for source in sources}
    # Each frame names the slice that lies where it does.
    at = {s.SOPInstanceUID: list(map(float, s.ImagePositionPatient)) for s in sources}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert at[source.ReferencedSOPInstanceUID] == list(map(float, position))


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@QUIET
@given(
    seed=st.integers(0, 2**32 - 1),
    # highdicom packs frames of fewer than 8 pixels wrongly.
    shape=st.tuples(st.integers(3, 12), st.integers(3, 12), st.integers(2, 12)),
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
def test_any_labels_on_any_grid_come_back(kind, seed, shape, angles, spacing, tmp_path):
    rng = np.random.default_rng(seed)
    affine = turned(angles, spacing)
    labels = random_labels(rng, shape) * (rng.random(shape[2]) < 0.6).astype(np.uint8)
    scan, file = Volume(np.zeros(shape), affine), tmp_path / "a.dcm"
    sources = headers(shape, affine)
    write(file, scan.with_array(labels), sources, kind=kind)
    read, names = read_dicom_seg(file, scan, segments=NAMES)
    np.testing.assert_array_equal(read.array, labels)
    assert names == NAMES
    np.testing.assert_array_equal(read.affine, scan.affine)
    if labels.any():
        expected = NUMBER_OF[labels] if kind == "binary" else labels
        np.testing.assert_array_equal(highdicom_volume(file, affine, shape), expected)


def test_own_grid_spans_the_slices_that_are_there(tmp_path, rng):
    affine, labels = axial(), random_labels(rng)
    labels[:, :, [0, 3, 5]] = 0
    sources = headers(labels.shape, affine)
    write(tmp_path / "a.dcm", Volume(labels, affine), sources)
    read, names = read_dicom_seg(tmp_path / "a.dcm")
    expected = affine.copy()
    expected[:3, 3] += affine[:3, 2]
    np.testing.assert_allclose(read.affine, expected, atol=1e-6)
    np.testing.assert_array_equal(read.array, NUMBER_OF[labels[:, :, 1:5]])
    assert names == {"liver": 1, "left kidney": 2, "liver tumour": 3}


def test_labels_stored_in_another_orientation(tmp_path, rng):
    affine, labels = axial(), random_labels(rng)
    volume = reorient(Volume(labels, affine), "SRA")
    assert volume.shape != labels.shape
    file = tmp_path / "a.dcm"
    write(file, volume, headers(labels.shape, affine))
    found = highdicom_volume(file, affine, labels.shape)
    np.testing.assert_array_equal(found, NUMBER_OF[labels])
    assert "DerivationImageSequence" in pydicom.dcmread(file).PerFrameFunctionalGroupsSequence[0]
    # And onto a scan that is stored so.
    read, _ = read_dicom_seg(file, volume, segments=NAMES)
    np.testing.assert_array_equal(read.array, volume.array)


def test_another_grid_in_the_same_frame_of_reference(tmp_path, rng):
    """Such as the upright grid of a tilted series: own size, spacing, direction and place."""
    sources = headers((20, 18, 9), axial())
    affine = turned((0.1, -0.2, 3.0), (1.1, 0.7, 1.9))
    labels, file = random_labels(rng), tmp_path / "a.dcm"
    write(file, Volume(labels, affine), sources)
    found = highdicom_volume(file, affine, labels.shape)
    np.testing.assert_array_equal(found, NUMBER_OF[labels])
    written = pydicom.dcmread(file)
    assert written.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    assert (written.Rows, written.Columns) != (18, 20)
    read, _ = read_dicom_seg(file, Volume(labels, affine), segments=NAMES)
    np.testing.assert_array_equal(read.array, labels)
    with pytest.raises(GeometryError, match="not those of the scan's grid"):
        read_dicom_seg(file, Volume(np.zeros((20, 18, 9)), axial()))


def test_simpleitk_reads_the_frames(tmp_path, rng):
    """GDCM unpacks the bits with code of its own; it knows no label maps.

    It leaves the last pixels unset where their bits do not fill a byte: here they do, though
    those of a single frame do not.
    """
    affine, labels = axial(), random_labels(rng, (15, 9, 8))
    labels = (labels > 1).astype(np.uint8)
    file = tmp_path / "a.dcm"
    sources = headers(labels.shape, affine)
    write(file, Volume(labels, affine), sources, names={"liver": 1})
    pixels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    groups = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence
    assert len(pixels) == len(groups) == 8
    for frame, group in zip(pixels, groups, strict=True):
        z = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        k = round((z - affine[2, 3]) / affine[2, 2])
        np.testing.assert_array_equal(frame.T > 0, labels[:, :, k] > 0)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_dcmqi_finds_the_same_voxels(kind, tmp_path, rng):
    program = Path(sys.executable).with_name("segimage2itkimage")
    if not program.exists():
        pytest.skip("dcmqi is not installed")
    affine = turned((0.3, 0.1, -0.2), (0.8, 0.9, 2.5))
    labels = random_labels(rng)
    file = tmp_path / "a.dcm"
    sources = headers(labels.shape, affine)
    write(file, Volume(labels, affine), sources, kind=kind)
    command = [program, "--inputDICOM", file, "--outputDirectory", tmp_path, "-t", "nii"]
    subprocess.run(command, check=True, capture_output=True)
    found = np.zeros(labels.shape, dtype=int)
    for image in tmp_path.glob("*.nii.gz"):
        volume = read_volume(image)
        index = np.argwhere(volume.array > 0)
        places = np.c_[index, np.ones(len(index))] @ (np.linalg.inv(affine) @ volume.affine).T
        np.testing.assert_allclose(places, np.rint(places), atol=1e-3)
        at = tuple(np.rint(places)[:, :3].astype(int).T)
        found[at] = volume.array[tuple(index.T)]
    np.testing.assert_array_equal(found, NUMBER_OF[labels] if kind == "binary" else labels)


def test_dciodvfy_finds_no_error(tmp_path, rng):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dicom3tools are not installed")
    labels, affine = random_labels(rng), axial()
    names = {**NAMES, "something else": 6}
    sources = headers(labels.shape, affine)
    write(tmp_path / "a.dcm", Volume(labels, affine), sources, names=names)
    result = subprocess.run(
        ["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True, check=False
    )
    output = (result.stdout + result.stderr).splitlines()
    assert "Segmentation" in output
    assert [line for line in output if line.startswith("Error")] == []


def test_a_mask_without_any_voxel(tmp_path):
    labels, affine = np.zeros((7, 5, 3), np.uint8), axial()
    for kind in ("binary", "labelmap"):
        file = tmp_path / f"{kind}.dcm"
        sources = headers(labels.shape, affine)
        write(file, Volume(labels, affine), sources, kind=kind)
        assert len(pydicom.dcmread(file).SegmentSequence) >= 3
        read, names = read_dicom_seg(file, Volume(labels, affine), segments=NAMES)
        assert names == NAMES
        assert read.shape == labels.shape
        assert not read.array.any()


def test_enhanced_multiframe_source(tmp_path, rng):
    labels, affine = random_labels(rng), axial()
    source = enhanced_dataset(headers(labels.shape, affine))
    file = tmp_path / "a.dcm"
    write(file, Volume(labels, affine), [source])
    found = highdicom_volume(file, affine, labels.shape)
    np.testing.assert_array_equal(found, NUMBER_OF[labels])
    frame = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence[0]
    image = frame.DerivationImageSequence[0].SourceImageSequence[0]
    z = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
    number = image.ReferencedFrameNumber
    assert z == pytest.approx(affine[2, 3] + (number - 1) * affine[2, 2])


def fractional(tmp_path, labels, affine) -> Path:
    """A FRACTIONAL segmentation of overlapping segments, written with highdicom alone."""
    rng = np.random.default_rng(3)
    sources = volume_datasets(np.zeros(labels.shape, np.int16), affine)
    described = [
        hd.seg.SegmentDescription(
            number, f"part {number}", hd.sr.CodedConcept("85756007", "SCT", "Tissue"),
            hd.sr.CodedConcept("85756007", "SCT", "Tissue"), "MANUAL",
        )
        for number in (1, 2)
    ]  # fmt: skip
    pixels = rng.random((*labels.shape[::-1], 2))
    seg = hd.seg.Segmentation(
        sources, pixels, "FRACTIONAL", described, pydicom.uid.generate_uid(), 9,
        pydicom.uid.generate_uid(), 1, "nobody", "nothing", "0", "0", max_fractional_value=200,
    )  # fmt: skip
    seg.save_as(tmp_path / "fractional.dcm")
    stored = np.floor(pixels * 200 + 0.5).astype(int).transpose(2, 1, 0, 3)
    return tmp_path / "fractional.dcm", stored


def test_fractional_and_overlapping_segments(tmp_path):
    affine, labels = axial(), np.zeros((6, 5, 4), np.uint8)
    file, stored = fractional(tmp_path, labels, affine)
    clear = (np.abs(stored - 100) > 1).all(axis=-1)  # away from rounding at the threshold
    assert clear.mean() > 0.9
    with pytest.raises(GeometryError, match="segments 1 and 2 overlap, and a voxel has one label"):
        read_dicom_seg(file, Volume(labels, affine))
    either, names = read_dicom_seg(file, Volume(labels, affine), segments=7)
    assert names == {"part 1": 7, "part 2": 7}
    expected = (stored >= 100).any(axis=-1)
    np.testing.assert_array_equal(either.array[clear], 7 * expected[clear])
    only, names = read_dicom_seg(file, Volume(labels, affine), segments={"PART 1 ": 7, "no": 3})
    np.testing.assert_array_equal(only.array[clear] == 7, stored[..., 0][clear] >= 100)


def test_frames_in_any_order_of_segments(tmp_path, rng):
    """Wherever its frames stand in the file, a segment is what it is."""
    affine, labels = axial(), np.zeros((8, 4, 3), np.uint8)
    file, stored = fractional(tmp_path, labels, affine)
    dataset = pydicom.dcmread(file)
    size = dataset.Rows * dataset.Columns
    pixels = [dataset.PixelData[n * size : (n + 1) * size] for n in range(dataset.NumberOfFrames)]
    order = rng.permutation(dataset.NumberOfFrames)
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    dataset.PixelData = b"".join(pixels[n] for n in order)
    dataset.save_as(tmp_path / "mixed.dcm")
    for number in (1, 2):
        one, other = (
            read_dicom_seg(f, Volume(labels, affine), segments={f"part {number}": 1})[0].array
            for f in (file, tmp_path / "mixed.dcm")
        )
        np.testing.assert_array_equal(one, other)
    assert stored.max() > 100


def test_a_part_of_the_scan_alone(tmp_path, rng):
    """A segmentation of a cropped grid lies at its place in the scan."""
    affine = axial()
    labels = np.zeros((13, 11, 6), np.uint8)
    labels[3:9, 2:7, 1:5] = random_labels(rng, (6, 5, 4))
    part_affine = affine.copy()
    part_affine[:3, 3] = (affine @ [3, 2, 1, 1])[:3]
    sources = headers(labels.shape, affine)
    part = Volume(labels[3:9, 2:7, 1:5], part_affine)
    write(tmp_path / "a.dcm", part, sources)
    scan = Volume(labels, affine)
    read, _ = read_dicom_seg(tmp_path / "a.dcm", scan, segments=NAMES)
    np.testing.assert_array_equal(read.array, labels)
    with pytest.raises(GeometryError, match="outside of the scan"):
        read_dicom_seg(tmp_path / "a.dcm", Volume(labels[:5], affine))


def test_odd_headers_do_not_stop_writing(tmp_path, rng):
    labels, affine = random_labels(rng), axial()
    sources = headers(labels.shape, affine, patient="Müller^Jürgen")
    for source in sources:
        source.SpecificCharacterSet = "ISO_IR 100"
        for keyword in ("PatientBirthDate", "StudyTime", "PatientSex", "AccessionNumber"):
            del source[keyword]
        source.add(pydicom.DataElement("StudyDate", "DA", "unknown", validation_mode=0))
        source.add(pydicom.DataElement("PatientSex", "CS", "W", validation_mode=0))
    file = tmp_path / "a.dcm"
    names = {"Œsophage": 1, "left kidney": 2, "x" * 90: 5}
    write(file, Volume(labels, affine), sources, names=names)
    written = pydicom.dcmread(file)
    assert str(written.PatientName) == "Müller^Jürgen"
    assert written.StudyDate == ""
    assert [item.SegmentLabel for item in written.SegmentSequence][::2] == ["Œsophage", "x" * 64]


def test_what_cannot_be_written(tmp_path, rng):
    labels, affine = random_labels(rng), axial()
    sources, volume = headers(labels.shape, affine), Volume(labels, affine)
    file = tmp_path / "a.dcm"
    others = headers(labels.shape, affine)
    for names, given_sources, message in (
        ({"liver": 1, "tumour": 5}, sources, r"label value\(s\) 2 have no name"),
        ({**NAMES, "spleen": 1}, sources, "different whole numbers"),
        ({**NAMES, " ": 6}, sources, r"label value\(s\) 6 have no name"),
        (NAMES, [*sources[:3], *others[3:]], "differ in StudyInstanceUID"),
    ):
        with pytest.raises(LeansegError, match=message) as raised:
            write(file, volume, given_sources, names=names)
        assert "Doe" not in str(raised.value)
    with pytest.raises(LeansegError, match="type float"):
        write(file, volume.with_array(labels / 2), sources)
    del sources[2].SOPInstanceUID
    with pytest.raises(LeansegError, match="no SOPInstanceUID, so nothing can refer"):
        write(file, volume, sources)
    assert list(tmp_path.iterdir()) == []


def two_segments(tmp_path, overlap=False, kind="BINARY"):
    """Segments 1 and 2 by highdicom, in slices 1 and 2 (and 1), and what they are on their scan."""
    affine, labels = axial(), np.zeros((9, 8, 4), np.uint8)
    sources = volume_datasets(np.zeros(labels.shape, np.int16), affine)
    write_slices(tmp_path / "ct", sources)
    labels[2:6, 2:5, 1], labels[3:7, 2:5, 2] = 1, 2
    code = hd.sr.CodedConcept("85756007", "SCT", "Tissue")
    described = [hd.seg.SegmentDescription(n, f"part {n}", code, code, "MANUAL") for n in (1, 2)]
    pixels = np.stack([labels.T == 1, labels.T == 2], axis=-1)
    pixels[1, 2, 2, 1] = overlap
    hd.seg.Segmentation(
        sources, labels.T if kind == "LABELMAP" else pixels, kind, described,
        pydicom.uid.generate_uid(), 9, pydicom.uid.generate_uid(), 1, "nobody", "nothing", "0", "0",
    ).save_as(tmp_path / "seg.dcm")  # fmt: skip
    return tmp_path / "seg.dcm", read_volume(tmp_path / "ct"), labels


def test_overlapping_segments_are_named(tmp_path):
    file, scan, _ = two_segments(tmp_path, overlap=True)
    with pytest.raises(GeometryError, match="segments 1 and 2 overlap, and a voxel has one label"):
        read_dicom_seg(file, scan)
    assert read_dicom_seg(file, scan, segments=1)[0].array.sum() == 24
    assert read_dicom_seg(file, scan, segments={"part 2": 1})[0].array.sum() == 13


def test_one_frame_needs_no_number_of_frames(tmp_path):
    file, scan, labels = two_segments(tmp_path)
    dataset = pydicom.dcmread(file)
    del dataset.NumberOfFrames
    dataset.save_as(file)
    with pytest.raises(FileFormatError, match="its NumberOfFrames is missing, but 2 are"):
        read_dicom_seg(file, scan)
    size = 9 * 8
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:1]
    dataset.PixelData = dataset.PixelData[: size // 8] + bytes(size // 8 % 2)
    dataset.save_as(file)
    assert hd.seg.segread(file).number_of_frames == 1
    np.testing.assert_array_equal(read_dicom_seg(file, scan)[0].array, labels * (labels == 1))


def frame(dataset, number):
    return dataset.PerFrameFunctionalGroupsSequence[number]


def of_segment(dataset, number, value):
    frame(dataset, number).SegmentIdentificationSequence[0].ReferencedSegmentNumber = value


def twice_in_a_place(dataset):
    of_segment(dataset, 1, 1)
    frame(dataset, 1).PlanePositionSequence = frame(dataset, 0).PlanePositionSequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: of_segment(d, 1, 5), "its frame 2 is of segment 5, which is not described"),
        (lambda d: frame(d, 0).pop("SegmentIdentificationSequence"), "frame 1 is of segment None"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "NumberOfFrames is 2, but 1 are"),
        (lambda d: setattr(d, "NumberOfFrames", 3), "its NumberOfFrames is 3, but 2 are"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "has 16 of 18 bytes of pixel"),
        (lambda d: setattr(d, "Rows", 7), "has 18 bytes of pixel data where its header says 16"),
        (lambda d: setattr(d, "BitsAllocated", 8), "its BitsAllocated is 8, which a BINARY"),
        (lambda d: setattr(d, "SegmentationType", "X"), "its SegmentationType is X, not one of"),
        (lambda d: setattr(d.SegmentSequence[1], "SegmentNumber", 1), "the value 1 twice as Segm"),
        (lambda d: frame(d, 1).pop("PlanePositionSequence"), "frame 2: its ImagePosition"),
        (twice_in_a_place, "its frame 2 is the second of its segment in the same place"),
        (lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.3"), "grey values as 1.2.3, but"),
        (lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"), "FrameOfReferenceUID is not"),
    ],
)  # fmt: skip
def test_contradictions_are_named(tmp_path, change, message):
    file, scan, labels = two_segments(tmp_path)
    np.testing.assert_array_equal(read_dicom_seg(file, scan)[0].array, labels)
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    with pytest.raises(LeansegError, match=message):
        read_dicom_seg(file, scan)


def test_a_label_map_holds_what_it_describes(tmp_path):
    file, scan, labels = two_segments(tmp_path, kind="LABELMAP")
    np.testing.assert_array_equal(read_dicom_seg(file, scan)[0].array, labels)
    dataset = pydicom.dcmread(file)
    dataset.SegmentSequence = [one for one in dataset.SegmentSequence if one.SegmentNumber != 2]
    dataset.save_as(file)
    with pytest.raises(
        FileFormatError, match="has voxels of segment 2, which it does not describe"
    ):
        read_dicom_seg(file, scan)


def test_what_cannot_be_read(tmp_path, rng):
    labels, affine = random_labels(rng, (40, 40, 4)), axial()
    sources = volume_datasets(np.zeros(labels.shape, np.int16), affine)
    scan = Volume(labels, affine)
    good, bad = tmp_path / "good.dcm", tmp_path / "bad.dcm"
    write(good, scan, sources)
    write_slices(tmp_path / "ct", sources[:1])
    content = good.read_bytes()
    with pytest.raises(FileFormatError, match="expected one DICOM file of segmentation, found 0"):
        read_dicom_seg(next((tmp_path / "ct").iterdir()), scan)
    bad.write_bytes(b"no dicom" * 99)
    with pytest.raises(FileFormatError, match="not DICOM"):
        read_dicom_seg(bad, scan)
    for kept in (0.99, 0.7, 0.3):
        bad.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(LeansegError):
            read_dicom_seg(bad, scan)
    with pytest.raises(FileFormatError, match="no such file"):
        read_dicom_seg(tmp_path / "none.dcm", scan)
    with pytest.raises(GeometryError, match="not those of the scan's grid"):
        read_dicom_seg(good, Volume(labels, axial((0.8, 0.9, 3.0))))
    with pytest.raises(LeansegError, match="has none of spleen; it has liver"):
        read_dicom_seg(good, scan, segments={"spleen": 1})


def test_damaged_files_end_in_a_sentence(tmp_path, rng):
    """No mutated file crashes, hangs or raises anything but the user's error."""
    labels, affine = random_labels(rng), axial()
    scan, good, bad = Volume(labels, affine), tmp_path / "good.dcm", tmp_path / "bad.dcm"
    refused = 0
    for kind in ("binary", "labelmap"):
        write(good, scan, headers(labels.shape, affine), kind=kind)
        content = np.frombuffer(good.read_bytes(), np.uint8)
        for _ in range(60):
            mutated = content.copy()
            places = rng.integers(128, len(content), rng.integers(1, 20))
            mutated[places] = rng.integers(0, 256, len(places))
            bad.write_bytes(mutated.tobytes())
            try:
                read_dicom_seg(bad, scan)
            except LeansegError as error:
                refused += 1
                assert "Doe" not in str(error)
    assert refused > 20


@pytest.mark.slow
def test_real_series(shared_data, tmp_path):
    """The liver of a CHAOS scan through DICOM SEG: the same voxels, in the place of the twin."""
    from leanseg.volumes.dicom import choose_series, find_series

    folder = shared_data / "abdomen_chaos03"
    labels = read_volume(folder / "liver_gt.nii.gz")
    series = choose_series(find_series(folder / "chaos_ct_set3_dicom_png.zip"))
    labels = labels.with_array((labels.array > 0).astype(np.uint8))
    for kind in ("binary", "labelmap"):
        file = tmp_path / f"{kind}.dcm"
        write_dicom_seg(file, labels, {"liver": 1}, series.stack(), kind=kind, algorithm=ALGORITHM)
        read, _ = read_dicom_seg(file, labels)
        np.testing.assert_array_equal(read.array, labels.array)
        found = highdicom_volume(file, labels.affine, labels.shape)
        np.testing.assert_array_equal(found, labels.array)
        assert labels.array.sum() > 100_000
        # Every slice with liver refers to its slice of the scan.
        frames = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence
        assert all("DerivationImageSequence" in frame for frame in frames)
