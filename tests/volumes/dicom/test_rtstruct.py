"""RT Structure Sets out and in, against rt-utils, plastimatch and dciodvfy."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_writer import write_series, write_slices
from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes import Volume, read_volume, reorient
from leanseg.volumes.dicom.rtstruct import write_rtstruct
from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct

from .conftest import axial, headers, stack_of, turned

ALGORITHM = ("MoNet", "1.2")
NAMES = {"liver": 1, "left kidney": 2, "liver tumour": 5}
QUIET = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_labels(rng, shape=(13, 11, 6)) -> np.ndarray:
    return rng.choice(np.array([0, 1, 1, 2, 5], dtype=np.uint8), shape)


def written(path, labels, affine, sources=None) -> Volume:
    scan = Volume(labels, affine)
    sources = headers(labels.shape, affine) if sources is None else sources
    write_rtstruct(path, scan, NAMES, stack_of(sources), algorithm=ALGORITHM)
    return scan


@QUIET
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(2, 14)),
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.05, 8.0)] * 3),
    codes=st.sampled_from(["RAS", "LPS", "SAR", "IPL"]),
)
def test_any_labels_on_any_grid_come_back(seed, shape, angles, spacing, codes, tmp_path):
    labels = random_labels(np.random.default_rng(seed), shape)
    scan = written(tmp_path / "a.dcm", labels, turned(angles, spacing))
    read, names = read_rtstruct(tmp_path / "a.dcm", scan, NAMES)
    np.testing.assert_array_equal(read.array, labels)
    assert names == NAMES
    stored = reorient(scan, codes)
    read, _ = read_rtstruct(tmp_path / "a.dcm", stored, NAMES)
    np.testing.assert_array_equal(read.array, stored.array)


def test_rt_utils_finds_the_same_voxels(tmp_path, rng):
    rt_utils = pytest.importorskip("rt_utils", reason="rt-utils cannot run", exc_type=ImportError)
    # rt-utils mixes up rows and columns where their number or spacing differs.
    labels, affine = random_labels(rng, (15, 15, 6)), turned((0.2, -0.1, 0.3), (0.8, 0.8, 2.5))
    sources = headers(labels.shape, affine)
    write_slices(tmp_path / "ct", sources)
    written(tmp_path / "a.dcm", labels, affine, sources)
    structures = rt_utils.RTStructBuilder.create_from(str(tmp_path / "ct"), str(tmp_path / "a.dcm"))
    assert structures.get_roi_names() == list(NAMES)
    for name, value in NAMES.items():
        mask = structures.get_roi_mask_by_name(name)  # (row, column, slice)
        np.testing.assert_array_equal(mask.transpose(1, 0, 2), labels == value)


def test_rt_utils_contours_are_read_to_the_voxels_it_drew(tmp_path, rng):
    """They run through the centres of the outermost voxels, holes as contours of their own."""
    rt_utils = pytest.importorskip("rt_utils", reason="rt-utils cannot run", exc_type=ImportError)
    labels, affine = np.zeros((20, 20, 4), np.uint8), axial((0.8, 0.8, 2.5))
    labels[3:15, 2:17, :] = 1
    labels[6:9, 6:12, 1:3] = 0
    labels[16:18, 3:6, 2] = 1
    write_series(tmp_path / "ct", labels.astype(np.int16), affine)
    builder = rt_utils.RTStructBuilder.create_new(str(tmp_path / "ct"))
    builder.add_roi(labels.transpose(1, 0, 2) > 0, name="liver")
    builder.save(str(tmp_path / "a.dcm"))
    read, names = read_rtstruct(tmp_path / "a.dcm", Volume(labels, affine))
    np.testing.assert_array_equal(read.array, labels)
    assert names == {"liver": 1}


def test_plastimatch_finds_the_same_voxels(tmp_path, rng):
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed")
    labels, affine = random_labels(rng, (17, 14, 5)), axial()
    sources = headers(labels.shape, affine)
    write_slices(tmp_path / "ct", sources)
    scan = written(tmp_path / "a.dcm", labels, affine, sources)
    command = ["plastimatch", "convert", "--input", tmp_path / "a.dcm", "--referenced-ct"]
    command += [tmp_path / "ct", "--output-prefix", tmp_path / "out", "--prefix-format", "nii.gz"]
    subprocess.run(command, check=True, capture_output=True)
    found = {file.name: file for file in (tmp_path / "out").glob("*.nii.gz")}
    assert len(found) == 3
    for name, value in NAMES.items():
        file = found[name + ".nii.gz"]
        mask = reorient(read_volume(file), scan.orientation)
        np.testing.assert_allclose(mask.affine, affine, atol=1e-3)
        np.testing.assert_array_equal(mask.array > 0, labels == value)


def test_dciodvfy_finds_no_error(tmp_path, rng):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dicom3tools are not installed")
    written(tmp_path / "a.dcm", random_labels(rng), axial())
    result = subprocess.run(
        ["dciodvfy", tmp_path / "a.dcm"], capture_output=True, text=True, check=False
    )
    output = (result.stdout + result.stderr).splitlines()
    assert "RTStructureSet" in output
    assert [line for line in output if line.startswith("Error")] == []


def test_what_the_file_says(tmp_path, rng):
    labels, affine = random_labels(rng), axial()
    labels[labels == 2] = 0
    sources = headers(labels.shape, affine)
    order = rng.permutation(len(sources))
    written(tmp_path / "a.dcm", labels, affine, [sources[n] for n in order])
    file = pydicom.dcmread(tmp_path / "a.dcm")
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert file[keyword].value == sources[0][keyword].value
    frame = file.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence}
    assert referenced == {source.SOPInstanceUID for source in sources}
    assert [roi.ROIName for roi in file.StructureSetROISequence] == list(NAMES)
    assert {roi.ROIGenerationAlgorithm for roi in file.StructureSetROISequence} == {"AUTOMATIC"}
    observed = [item.RTROIInterpretedType for item in file.RTROIObservationsSequence]
    assert observed == ["ORGAN", "ORGAN", "GTV"]
    colours = [tuple(item.ROIDisplayColor) for item in file.ROIContourSequence]
    assert len(set(colours)) == 3
    assert "ContourSequence" not in file.ROIContourSequence[1]  # a label without a voxel
    at = {source.SOPInstanceUID: float(source.ImagePositionPatient[2]) for source in sources}
    for contour in file.ROIContourSequence[0].ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        heights = np.array(contour.ContourData, float)[2::3]
        uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(heights, at[uid], atol=1e-6)
        assert contour.NumberOfContourPoints == len(heights)


def test_a_grid_of_its_own_has_contours_without_slices(tmp_path, rng):
    """Such as the upright grid of a tilted series: in the patient they are where they belong."""
    sources = headers((20, 18, 9), axial())
    labels, affine = random_labels(rng), turned((0.1, -0.2, 3.0), (1.1, 0.7, 1.9))
    scan = written(tmp_path / "a.dcm", labels, affine, sources)
    read, _ = read_rtstruct(tmp_path / "a.dcm", scan, NAMES)
    np.testing.assert_array_equal(read.array, labels)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    contours = [c for roi in file.ROIContourSequence for c in roi.ContourSequence]
    assert not any("ContourImageSequence" in contour for contour in contours)
    with pytest.raises(GeometryError, match="aslant"):
        read_rtstruct(tmp_path / "a.dcm", Volume(np.zeros((20, 18, 9)), axial()))


def test_long_contours_are_whole(tmp_path):
    """More than the 65534 bytes that explicit encodings have room for."""
    labels = np.zeros((128, 128, 2), np.uint8)
    labels[::2, :, 0] = labels[:, 0, 0] = 1
    labels[1::2, 1::2, 0] = 1
    scan = written(tmp_path / "a.dcm", labels, axial())
    longest = pydicom.dcmread(tmp_path / "a.dcm").ROIContourSequence[0].ContourSequence[0]
    assert longest.NumberOfContourPoints > 5000
    read, _ = read_rtstruct(tmp_path / "a.dcm", scan)
    np.testing.assert_array_equal(read.array, labels)


def by_hand(path, sources, contours, kind="CLOSED_PLANAR") -> None:
    """A structure set of ROI number to contours, each (points, 3) in LPS mm.

    `kind` is that of all contours, or lists it for each.
    """
    kinds = iter(kind if isinstance(kind, list) else [kind] * 99)
    write_rtstruct(
        path,
        Volume(np.ones((2, 2, 2), np.uint8), axial()),
        {"x": 1},
        stack_of(sources),
        algorithm=ALGORITHM,
    )
    file = pydicom.dcmread(path)
    rois, outlines = [], []
    for number, drawn in contours.items():
        roi, outline = pydicom.Dataset(), pydicom.Dataset()
        roi.ROINumber, roi.ROIName = number, f"part {number}"
        roi.ReferencedFrameOfReferenceUID = sources[0].FrameOfReferenceUID
        outline.ReferencedROINumber = number
        outline.ContourSequence = []
        for points in drawn:
            contour = pydicom.Dataset()
            contour.ContourGeometricType = next(kinds)
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{value:.6f}" for value in np.ravel(points)]
            outline.ContourSequence.append(contour)
        rois.append(roi)
        outlines.append(outline)
    file.StructureSetROISequence, file.ROIContourSequence = rois, outlines
    file.save_as(path)


def square(low, high, k, affine=None) -> np.ndarray:
    """A square in voxel indices of the slice k, as LPS mm."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    index = np.array([(i, j, k, 1) for i, j in corners], float)
    return (index @ (axial() if affine is None else affine).T)[:, :3] * (-1, -1, 1)


def test_contours_of_other_programs(tmp_path):
    shape = (12, 12, 5)
    scan, sources, file = (
        Volume(np.zeros(shape), axial()),
        headers(shape, axial()),
        tmp_path / "a",
    )
    # A hole as a contour of its own, two contours in a slice, one 0.3 steps off the plane, one
    # that reaches out of the scan, one on top.
    one = [square(0.5, 8.5, 1), square(2.5, 4.5, 1), square(9.5, 11.7, 1), square(4.2, 30, 3.3)]
    by_hand(file, sources, {7: [square(5.5, 6.5, 1)], 3: one})
    expected = np.zeros(shape, int)
    expected[1:9, 1:9, 1] = 1
    expected[3:5, 3:5, 1] = 0
    expected[10:, 10:, 1] = 1
    expected[5:, 5:, 3] = 1
    with pytest.raises(GeometryError, match="part 3 and part 7 overlap, and a voxel has one label"):
        read_rtstruct(file, scan)
    read, names = read_rtstruct(file, scan, {"part 3": 1})
    np.testing.assert_array_equal(read.array, expected)
    read, names = read_rtstruct(file, scan, 1)
    assert names == {"part 3": 1, "part 7": 1}
    np.testing.assert_array_equal(read.array, expected)
    read, names = read_rtstruct(file, scan, {"Part 7": 9, "spleen": 4})
    np.testing.assert_array_equal(np.argwhere(read.array), [[6, 6, 1]])
    assert names == {"Part 7": 9}


CLOSED, BETWEEN, XOR = "CLOSED_PLANAR", "INTERPOLATED_PLANAR", "CLOSEDPLANAR_XOR"


def rotated(points):
    """The same contour from another point on, the other way round."""
    return np.roll(points, 1, axis=0)[::-1]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([(CLOSED, (1.5, 7.5))], 36),
        ([(BETWEEN, (1.5, 7.5))], 36),
        ([(CLOSED, (1.5, 7.5))] * 2, 36),
        ([(CLOSED, (1.5, 7.5))] * 3, 36),
        ([(CLOSED, (2, 7))] * 3, 36),
        ([(CLOSED, (2, 7)), (BETWEEN, (2, 7))], 36),
        ([(CLOSED, (1.5, 7.5)), (BETWEEN, (1.5, 7.5))], 36),
        ([(CLOSED, (1.5, 7.5)), (BETWEEN, (2.5, 6.5))], 36),
        ([(CLOSED, (1.5, 7.5)), (CLOSED, (1.6, 7.4))], 36),
        ([(CLOSED, (1.5, 7.5)), (CLOSED, (2.5, 7.5))], 36),
        ([(CLOSED, (1.5, 7.5)), (CLOSED, (5.5, 9.5))], 36 + 16 - 4),
        ([(BETWEEN, (1.5, 7.5)), (BETWEEN, (5.5, 9.5))], 36 + 16 - 4),
        ([(CLOSED, (1.5, 7.5)), (CLOSED, (3.5, 5.5))], 36 - 4),
        ([(CLOSED, (1.5, 7.5))] * 2 + [(CLOSED, (3.5, 5.5))] * 2, 36 - 4),
        ([(CLOSED, (0.5, 10.5)), (CLOSED, (2.5, 8.5)), (CLOSED, (4.5, 6.5))], 100 - 36 + 4),
        ([(XOR, (1.5, 7.5))], 36),
        ([(XOR, (1.5, 7.5)), (XOR, (3.5, 5.5))], 36 - 4),
        ([(XOR, (1.5, 7.5)), (XOR, (5.5, 9.5))], 36 + 16 - 8),
        ([(XOR, (1.5, 7.5)), (CLOSED, (5.5, 9.5))], 36 + 16 - 4),
    ],
)
def test_contours_are_united_but_for_holes_and_xor(tmp_path, drawn, expected):
    """PS3.3, C.8.8.6.3, and medical-physics-usz/z-rad#181; counted by hand."""
    scan, sources = Volume(np.zeros((12, 12, 3)), axial()), headers((12, 12, 3), axial())
    outlines = [rotated(square(*ends, 1)) if n % 2 else square(*ends, 1)
                for n, (_, ends) in enumerate(drawn)]  # fmt: skip
    by_hand(tmp_path / "a", sources, {1: outlines}, kind=[kind for kind, _ in drawn])
    read, _ = read_rtstruct(tmp_path / "a", scan)
    assert read.array.sum() == expected
    is_hole = drawn[-1] == (CLOSED, (3.5, 5.5)) or len({ends for _, ends in drawn}) == 3
    assert ("within others, read as holes" in str(read.notes)) == is_hole


@QUIET
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6))
def test_repeated_contours_take_nothing_away(seed, n, tmp_path):
    """However often each contour is there, and in whatever order."""
    rng = np.random.default_rng(seed)
    labels = random_labels(rng) == 1
    scan = written(tmp_path / "a.dcm", labels.astype(np.uint8), axial())
    file = pydicom.dcmread(tmp_path / "a.dcm")
    contours = list(file.ROIContourSequence[0].ContourSequence)
    contours += [contours[k] for k in rng.integers(0, len(contours), n)]
    file.ROIContourSequence[0].ContourSequence = [
        contours[k] for k in rng.permutation(len(contours))
    ]
    file.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(
        read_rtstruct(tmp_path / "a.dcm", scan, {"liver": 1})[0].array, labels
    )


def test_nothing_vanishes_without_a_word(tmp_path):
    shape = (12, 12, 5)
    scan, sources = Volume(np.zeros(shape), axial()), headers(shape, axial())
    good, file = square(1.5, 7.5, 1), tmp_path / "a"
    by_hand(
        file, sources, {1: [good, good[:2]], 2: [], 3: [square(9, 11, 2)]}, [CLOSED] * 2 + ["POINT"]
    )
    read, _ = read_rtstruct(file, scan)
    assert (read.array == 1).sum() == 36
    assert not (read.array > 1).any()
    for note in (
        "part 1 has 1 contours left out (fewer than three points)",
        "part 3 has 1 contours left out (POINT)",
        "part 2 has no contours",
    ):
        assert note in read.notes
    with pytest.raises(FileFormatError, match="part 3 has no closed contours but POINT"):
        read_rtstruct(file, scan, {"part 1": 1, "part 3": 2})
    by_hand(file, sources, {1: [good, square(1.5, 7.5, 9)]})
    read, _ = read_rtstruct(file, scan)
    assert "part 1 has contours in 1 slices off the scan" in read.notes


def changed(keyword, value):
    def change(file):
        contour = file.ROIContourSequence[0].ContourSequence[0]
        where = file.ROIContourSequence[0] if keyword == "ReferencedROINumber" else contour
        where = file.StructureSetROISequence[1] if keyword == "ROINumber" else where
        setattr(where, keyword, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("ContourGeometricType", "SPLINE"), "part 1 has ContourGeometricType SPLINE"),
        (changed("ContourGeometricType", ""), r"part 1 has ContourGeometricType \(none\)"),
        (changed("ContourData", None), "part 1 has 0 numbers as ContourData for .* 4"),
        (changed("ContourData", [1, 2, 3, 4]), "part 1 has 4 numbers as ContourData for .* 4"),
        (changed("NumberOfContourPoints", 5), "part 1 has 12 numbers as ContourData for .* 5"),
        (changed("ContourData", ["1e9"] * 12), "ContourData that are no places in a patient"),
        (changed("ReferencedROINumber", 8), r"contours of a structure \(ReferencedROINumber 8\)"),
        (changed("ROINumber", 1), "the value 1 twice as ROINumber"),
    ],
)
def test_contradictions_are_named(tmp_path, change, message):
    sources = headers((12, 12, 5), axial())
    by_hand(tmp_path / "a", sources, {1: [square(1.5, 7.5, 1)], 2: [square(1.5, 7.5, 2)]})
    file = pydicom.dcmread(tmp_path / "a")
    change(file)
    file.save_as(tmp_path / "a")
    with pytest.raises(FileFormatError, match=message):
        read_rtstruct(tmp_path / "a", Volume(np.zeros((12, 12, 5)), axial()))


def test_contours_in_another_frame_of_reference_are_refused(tmp_path):
    sources, others = (headers((12, 12, 5), axial()) for _ in range(2))
    write_slices(tmp_path / "ct", sources)
    scan = read_volume(tmp_path / "ct")
    by_hand(tmp_path / "a", sources, {1: [square(1.5, 7.5, 1)]})
    assert read_rtstruct(tmp_path / "a", scan)[0].array.sum() == 36
    by_hand(tmp_path / "a", others, {1: [square(1.5, 7.5, 1)]})
    with pytest.raises(GeometryError, match="its FrameOfReferenceUID is not that of"):
        read_rtstruct(tmp_path / "a", scan)


def test_what_cannot_be_read(tmp_path, rng):
    shape = (12, 12, 5)
    scan, sources, file = (
        Volume(np.zeros(shape), axial()),
        headers(shape, axial()),
        tmp_path / "a",
    )
    by_hand(file, sources, {1: [square(1, 4, 2.5)]})
    with pytest.raises(GeometryError, match=r"between the scan's slices, up to 1.25 mm"):
        read_rtstruct(file, scan)
    by_hand(file, sources, {1: [square(1, 4, 2.3), square(1, 4, 1.8)]})
    with pytest.raises(GeometryError, match="between the scan's slices"):
        read_rtstruct(file, scan)
    by_hand(file, sources, {1: [square(50, 60, 2)]})
    with pytest.raises(GeometryError, match="outside of the scan"):
        read_rtstruct(file, scan)
    by_hand(file, sources, {1: [square(1, 4, 40)]})
    with pytest.raises(GeometryError, match="outside of the scan"):
        read_rtstruct(file, scan)
    by_hand(file, sources, {})
    with pytest.raises(FileFormatError, match="has no contours"):
        read_rtstruct(file, scan)
    by_hand(file, sources, {1: [square(1, 4, 2)]}, kind="OPEN_PLANAR")
    assert not read_rtstruct(file, scan)[0].array.any()
    by_hand(file, sources, {1: [square(1, 4, 2)]})
    with pytest.raises(LeansegError, match="has none of spleen; it has part 1"):
        read_rtstruct(file, scan, {"spleen": 1})
    write_slices(tmp_path / "ct", sources[:1])
    with pytest.raises(FileFormatError, match="expected one DICOM file of contours, found 0"):
        read_rtstruct(next((tmp_path / "ct").iterdir()), scan)


def test_cut_files_are_refused(tmp_path, rng):
    labels = random_labels(rng)
    scan = written(tmp_path / "good.dcm", labels, axial())
    content, bad = (tmp_path / "good.dcm").read_bytes(), tmp_path / "bad.dcm"
    for kept in np.linspace(0.0, 0.999, 40):
        bad.write_bytes(content[: int(len(content) * kept)])
        try:
            read, _ = read_rtstruct(bad, scan, NAMES)
        except LeansegError as error:
            assert "Doe" not in str(error)
        else:  # nothing but the observations may be lost
            np.testing.assert_array_equal(read.array, labels)


def test_damaged_files_end_in_a_sentence(tmp_path, rng):
    scan = written(tmp_path / "good.dcm", random_labels(rng, (6, 5, 3)), axial())
    content = np.frombuffer((tmp_path / "good.dcm").read_bytes(), np.uint8)
    bad, refused = tmp_path / "bad.dcm", 0
    for _ in range(150):
        mutated = content.copy()
        places = rng.integers(128, len(content), rng.integers(1, 20))
        mutated[places] = rng.integers(0, 256, len(places))
        bad.write_bytes(mutated.tobytes())
        try:
            read_rtstruct(bad, scan)
        except LeansegError as error:
            refused += 1
            assert "Doe" not in str(error)
    assert refused > 20


def test_a_mask_without_any_voxel(tmp_path):
    scan = written(tmp_path / "a.dcm", np.zeros((7, 5, 3), np.uint8), axial())
    read, names = read_rtstruct(tmp_path / "a.dcm", scan, NAMES)
    assert names == NAMES
    assert not read.array.any()


def test_what_cannot_be_written(tmp_path, rng):
    """Names and references are checked as for SEG."""
    labels, affine = random_labels(rng), axial()
    sources = headers(labels.shape, affine)
    volume, file = Volume(labels, affine), tmp_path / "a.dcm"
    for source in sources:
        del source.FrameOfReferenceUID
    with pytest.raises(LeansegError, match="no FrameOfReferenceUID, so nothing can refer"):
        write_rtstruct(file, volume, NAMES, stack_of(sources), algorithm=ALGORITHM)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_real_series(shared_data, tmp_path):
    """The liver of a CHAOS scan through contours: the same voxels."""
    from leanseg.volumes.dicom import choose_series, find_series

    folder = shared_data / "abdomen_chaos03"
    labels = read_volume(folder / "liver_gt.nii.gz")
    labels = labels.with_array((labels.array > 0).astype(np.uint8))
    series = choose_series(find_series(folder / "chaos_ct_set3_dicom_png.zip"))
    file = tmp_path / "a.dcm"
    write_rtstruct(file, labels, {"liver": 1}, series.stack(), algorithm=ALGORITHM)
    read, _ = read_rtstruct(file, labels)
    np.testing.assert_array_equal(read.array, labels.array)
    assert labels.array.sum() > 100_000
    contours = pydicom.dcmread(file).ROIContourSequence[0].ContourSequence
    assert all("ContourImageSequence" in contour for contour in contours)
