"""NIfTI against nibabel, and its header fields against the bytes in the file."""

from __future__ import annotations

import gc
import gzip
import struct
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leanseg.errors import FileFormatError, GeometryError
from leanseg.inference.memory import peak_memory_mb, reset_peak
from leanseg.volumes import Volume, read_volume, write_mask, write_volume
from leanseg.volumes.nifti import _ordinary

SHAPE = (3, 4, 5)
SHEARED = np.array([[-0.7, 0.1, 0, 90], [0.05, -0.8, 0.2, 70], [0, 0.1, 2.5, -400], [0, 0, 0, 1]])
TURNED = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, -3.0, 30], [0, 0, 0, 1]])
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]

# Offset and format of the fields that place the voxels, from the NIfTI-1 and NIfTI-2 standards.
PLACING_1 = {
    "pixdim": (76, "8f"),
    "xyzt_units": (123, "b"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quaternion": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow": (280, "12f"),
}
PLACING_2 = {
    "pixdim": (104, "8d"),
    "qform_code": (344, "i"),
    "sform_code": (348, "i"),
    "quaternion": (352, "3d"),
    "qoffset": (376, "3d"),
    "srow": (400, "12d"),
    "xyzt_units": (500, "i"),
}


def voxels(dtype, shape=SHAPE, seed=0):
    """Over the whole range of the type."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return (rng.normal(size=shape) * 1000).astype(dtype)
    limits = np.iinfo(dtype)
    array = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    array.flat[:2] = limits.min, limits.max
    return array


def stored(path, array, *, affine=SHEARED, header=None, slope=None, inter=None, order="<"):
    """A file written by nibabel, in either byte order, with the stored values given."""
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    if header is None:
        header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(array.dtype)
    image = kind(array, affine, header)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    image.to_filename(path)
    return path


def header_bytes(path):
    raw = path.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def fields(path):
    raw = header_bytes(path)
    order = "<" if raw[:4] in (struct.pack("<i", 348), struct.pack("<i", 540)) else ">"
    table = PLACING_1 if struct.unpack(order + "i", raw[:4])[0] == 348 else PLACING_2
    found = {
        name: raw[offset : offset + struct.calcsize(order + form)]
        for name, (offset, form) in table.items()
    }
    return order, found


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_in_either_byte_order(tmp_path, dtype, suffix, order):
    array = voxels(dtype)
    path = stored(tmp_path / f"a{suffix}", array, order=order)
    assert fields(path)[0] == order
    volume = read_volume(path)
    expected = nib.load(path)
    np.testing.assert_array_equal(volume.affine, expected.affine)
    assert volume.path == path
    assert volume.array.dtype.isnative
    if array.dtype.kind == "f":
        assert volume.array.dtype == np.float32
        np.testing.assert_array_equal(volume.array, array.astype(np.float32))
    else:
        assert volume.array.dtype == array.dtype
        np.testing.assert_array_equal(volume.array, array)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize(("slope", "inter"), [(2.0, 0.0), (1.0, -1024.0), (0.37, 12.5)])
def test_slope_and_intercept(tmp_path, dtype, slope, inter):
    array = voxels(dtype)
    path = stored(tmp_path / "a.nii.gz", np.zeros(SHAPE, dtype))
    # nibabel rescales on writing; put the stored values and the scaling in by hand.
    raw = bytearray(header_bytes(path))
    raw[112:120] = struct.pack("<2f", slope, inter)
    raw[352:] = array.tobytes(order="F")
    path.write_bytes(gzip.compress(bytes(raw)))
    volume = read_volume(path)
    assert volume.array.dtype == np.float32
    expected = nib.load(path).get_fdata(dtype=np.float64)
    np.testing.assert_allclose(volume.array, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_meaningless_slope_is_none(tmp_path, slope):
    array = voxels("i2")
    path = stored(tmp_path / "a.nii", array)
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack("<2f", slope, 7.0)
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_volume(path).array, array)


@pytest.mark.parametrize(
    ("codes", "chosen"), [((0, 2), "sform"), ((1, 0), "qform"), ((0, 0), "spacing")]
)
def test_precedence_of_affines(tmp_path, codes, chosen):
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_qform(TURNED, codes[0])
    header.set_sform(SHEARED, codes[1])
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + bytes(4 + 4 * 60))
    raw = bytearray(path.read_bytes())
    raw[70:74] = struct.pack("<2h", 16, 32)
    raw[108:112] = struct.pack("<f", 352)
    path.write_bytes(raw)
    affine = read_volume(path).affine
    np.testing.assert_array_equal(affine, nib.load(path).affine)
    expected = {"sform": SHEARED, "qform": TURNED}.get(chosen)
    if expected is None:
        np.testing.assert_allclose(np.abs(np.diag(affine)[:3]), (1.5, 2, 3))
    else:
        np.testing.assert_allclose(affine, expected, atol=1e-5)


def with_codes(tmp_path, q_code, s_code, header, shape=SHAPE):
    """A scan whose qform and sform disagree, with every other field filled too."""
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["pixdim"][4:] = [0.5, 3.25, 7, 9]
    header.set_qform(TURNED, q_code)
    header.set_sform(SHEARED, s_code)
    header["quatern_b"] = np.nextafter(np.float32(header["quatern_b"]), np.float32(1))
    header.set_xyzt_units("micron", "msec")
    header["cal_max"], header["cal_min"] = 200, -150
    header["descrip"], header["aux_file"], header["intent_name"] = b"scan", b"aux", b"intent"
    header["slice_duration"], header["toffset"], header["slice_code"] = 2, 3, 1
    header["intent_code"] = 1001
    header["scl_slope"], header["scl_inter"] = 2, -1024
    header["vox_offset"] = header.single_vox_offset
    path = tmp_path / "scan.nii.gz"
    data = np.zeros(shape, header.get_data_dtype()).tobytes()
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + data))
    return path


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize(
    ("q_code", "s_code"), [(1, 2), (0, 2), (1, 0), (3, 0), (0, 0), (2, 4), (1, 1)]
)
@pytest.mark.parametrize("highest", [255, 256])
def test_a_mask_keeps_the_place_bit_for_bit(tmp_path, q_code, s_code, kind, order, highest):
    scan = with_codes(tmp_path, q_code, s_code, kind(endianness=order))
    mask = np.random.default_rng(0).integers(0, highest, SHAPE)
    mask[0, 0, 0] = highest
    like = read_volume(scan)
    for name in ("mask.nii.gz", "mask.nii"):
        write_mask(tmp_path / name, mask, like)
        assert fields(tmp_path / name) == fields(scan)
        image = nib.load(tmp_path / name)
        np.testing.assert_array_equal(image.affine, nib.load(scan).affine)
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), mask)
        written = kind(header_bytes(tmp_path / name)[: like.header.record.itemsize], check=False)
        assert written.get_data_dtype() == np.dtype("u1" if highest == 255 else order + "u2")
        assert (written["scl_slope"], written["scl_inter"]) == (1, 0)
        assert written["descrip"] == b"leanseg"
        cleared = ("cal_max", "cal_min", "slice_duration", "toffset", "slice_code", "intent_code")
        assert all(written[field] == 0 for field in cleared)
        assert written["aux_file"] == written["intent_name"] == b""
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, mask)


def test_a_header_that_needs_repair_is_kept_as_it_was(tmp_path):
    scan = with_codes(tmp_path, 1, 0, nib.Nifti1Header())
    raw = bytearray(header_bytes(scan))
    raw[76:80] = struct.pack("<f", 0)  # qfac 0, which readers take for 1
    scan.write_bytes(gzip.compress(bytes(raw)))
    like = read_volume(scan)
    in_micrometres = nib.load(scan).affine
    np.testing.assert_allclose(like.affine[:3] * 1000, in_micrometres[:3], rtol=1e-15)
    write_mask(tmp_path / "m.nii.gz", np.ones(SHAPE, bool), like)
    np.testing.assert_array_equal(read_volume(tmp_path / "m.nii.gz").affine, like.affine)
    assert fields(tmp_path / "m.nii.gz") == fields(scan)


def test_a_mask_of_a_scan_with_channels(tmp_path):
    scan = with_codes(tmp_path, 1, 2, nib.Nifti1Header(), shape=(3, 4, 5, 2))
    like = read_volume(scan)
    assert like.n_channels == 2
    write_mask(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), like)
    assert nib.load(tmp_path / "m.nii.gz").shape == SHAPE
    assert fields(tmp_path / "m.nii.gz") == fields(scan)


@pytest.mark.parametrize(("affine", "q_code"), [(TURNED, 2), (SHEARED, 0)])
def test_without_a_header_the_affine_becomes_the_sform(tmp_path, affine, q_code):
    like = Volume(np.zeros(SHAPE), affine)
    write_mask(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), like)
    header = nib.load(tmp_path / "m.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (2, q_code)
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    if q_code:
        np.testing.assert_allclose(header.get_qform(), affine, atol=1e-5)
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_zooms(), like.spacing_mm, rtol=1e-6)


def test_a_header_that_contradicts_the_affine_is_not_used(tmp_path):
    header = read_volume(stored(tmp_path / "a.nii", voxels("i2"))).header
    moved = SHEARED.copy()
    moved[0, 3] += 0.5
    write_volume(tmp_path / "b.nii", Volume(voxels("i2"), moved, header=header))
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii").affine, moved, atol=1e-5)


@given(
    dtype=st.sampled_from([*DTYPES, "f2", "?"]),
    shape=st.tuples(*[st.integers(1, 9)] * 3) | st.tuples(*[st.integers(1, 5)] * 3, st.just(3)),
    layout=st.sampled_from(["C", "F", "view"]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
@settings(deadline=None, max_examples=60)
def test_volume_round_trip(tmp_path_factory, dtype, shape, layout, suffix):
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    base = np.random.default_rng(0).integers(0, 2, shape) if dtype == "?" else voxels(dtype, shape)
    array = base.astype(dtype, order="F" if layout == "F" else "C")
    if layout == "view":
        array = array[::-1, :, ::-1]
    write_volume(path, Volume(array, TURNED))
    wider = {"?": "u1", "f2": "f4"}.get(dtype, dtype)
    image = nib.load(path)
    assert image.get_data_dtype() == np.dtype(wider)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, TURNED)
    back = read_volume(path)
    np.testing.assert_array_equal(back.array, array.astype("f4" if wider == "f8" else wider))


def test_more_slices_than_a_block(tmp_path, rng):
    array = rng.integers(0, 9, (5, 6, 200)).astype(np.uint8)
    write_volume(tmp_path / "a.nii.gz", Volume(array, TURNED))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, array)
    # An independent gzip accepts the file, checksum included.
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[352:] == array.tobytes(order="F")


def test_an_axis_past_nifti_1(tmp_path):
    array = np.zeros((40000, 1, 2), np.uint8)
    array[39999] = 1
    write_volume(tmp_path / "a.nii.gz", Volume(array, TURNED))
    assert isinstance(nib.load(tmp_path / "a.nii.gz"), nib.Nifti2Image)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, array)


def test_the_same_mask_gives_the_same_bytes(tmp_path):
    like = Volume(np.zeros(SHAPE), TURNED)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(tmp_path / name, np.ones(SHAPE, np.uint8), like)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 4, 5, 1), (3, 4, 5)), ((3, 4, 5, 1, 2), (3, 4, 5, 2)), ((3, 4, 5, 2), (3, 4, 5, 2))],
)
def test_singleton_axes(tmp_path, shape, expected):
    array = voxels("i2", shape)
    volume = read_volume(stored(tmp_path / "a.nii.gz", array))
    np.testing.assert_array_equal(volume.array, array.reshape(expected))


def test_content_counts_more_than_the_suffix(tmp_path):
    path = stored(tmp_path / "a.nii.gz", voxels("i2"))
    plain, zipped = tmp_path / "plain.nii.gz", tmp_path / "zipped.nii"
    plain.write_bytes(header_bytes(path))
    zipped.write_bytes(path.read_bytes())
    for other in (plain, zipped):
        np.testing.assert_array_equal(read_volume(other).array, voxels("i2"))


def test_voxels_after_an_extension(tmp_path):
    image = nib.Nifti1Image(voxels("i2"), SHEARED)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a long comment" * 9))
    image.to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, voxels("i2"))
    write_mask(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), volume)
    assert len(nib.load(tmp_path / "m.nii.gz").header.extensions) == 0
    assert (nib.load(tmp_path / "m.nii.gz").get_fdata() == 1).all()


@pytest.mark.parametrize("dtype", ["c8", "c16", [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_colour_and_complex_are_refused(tmp_path, dtype):
    path = stored(tmp_path / "a.nii", np.zeros(SHAPE, dtype))
    with pytest.raises(FileFormatError, match="are not grey values"):
        read_volume(path)


@given(keep=st.floats(0.0, 0.9999))
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, suffix, keep):
    folder = tmp_path_factory.getbasetemp()
    path = stored(folder / f"whole{suffix}", voxels("i2", (9, 8, 7)))
    raw = path.read_bytes()
    cut = folder / f"cut{suffix}"
    cut.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(FileFormatError, match=f"cut{suffix}"):
        read_volume(cut)


def test_an_altered_byte_fails_the_checksum(tmp_path, rng):
    path = tmp_path / "a.nii.gz"
    array = rng.integers(0, 2**16, (20, 20, 20)).astype(np.uint16)
    write_volume(path, Volume(array, TURNED))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match="damaged or cut short"):
        read_volume(path)


def test_a_header_that_promises_terabytes(tmp_path):
    path = stored(tmp_path / "a.nii", voxels("i2"))
    raw = bytearray(path.read_bytes())
    raw[40:48] = struct.pack("<4h", 3, 32767, 32767, 32767)
    for name, content in (("b.nii", bytes(raw)), ("b.nii.gz", gzip.compress(bytes(raw)))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileFormatError, match="cut short"):
            read_volume(tmp_path / name)


def test_a_nifti_2_header_whose_size_overflows(tmp_path):
    path = stored(tmp_path / "a.nii", voxels("i2"), header=nib.Nifti2Header())
    raw = bytearray(path.read_bytes())
    raw[16:48] = struct.pack("<4q", 3, 2**31, 2**31, 2**31)
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match="cut short"):
        read_volume(path)


def test_an_affine_without_volume(tmp_path):
    path = stored(tmp_path / "a.nii", voxels("i2"))
    raw = bytearray(path.read_bytes())
    raw[280:328] = struct.pack("<12f", *([0.0] * 12))
    path.write_bytes(raw)
    with pytest.raises(GeometryError, match=r"a\.nii: the affine .* determinant zero"):
        read_volume(path)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (70, struct.pack("<h", 9999), "header is wrong"),  # datatype
        (344, b"abc\0", "magic"),
        (344, b"ni1\0", "magic"),
        (112, struct.pack("<2f", 2.0, np.inf), "header is wrong"),
        (108, struct.pack("<f", np.nan), "header is wrong"),  # where the voxels begin
        (108, struct.pack("<f", np.inf), "header is wrong"),
        (108, struct.pack("<f", 1e30), "cut short"),
        (40, struct.pack("<8h", 2, 12, 5, 1, 1, 1, 1, 1), "expected a 3-D volume"),
        (40, struct.pack("<8h", 3, 3, 0, 5, 1, 1, 1, 1), "empty axis"),
    ],
)
def test_damaged_headers(tmp_path, offset, value, message):
    path = stored(tmp_path / "a.nii", voxels("i2"))
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(value)] = value
    path.write_bytes(raw)
    with pytest.raises((FileFormatError, GeometryError), match=message) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


def files_of(folder, pattern):
    found = sorted(folder.glob(pattern))
    assert found, f"no {pattern} in {folder}"
    return found


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "pattern",
    [
        "Task101_SarcomaCT/*Tr/sts_00[23].nii.gz",
        "Task102_BrainTumour/*Tr/*606*.nii.gz",
        "abdomen_ircad*/*.nii.gz",
        "abdomen_chaos03/liver_gt.nii.gz",
        "totalsegmentator_peer/*.nii.gz",
        "kits19_masks/case_00061/*.nii.gz",
    ],
)
def test_real_scans(shared_data, tmp_path, pattern):
    for path in files_of(shared_data, pattern):
        volume = read_volume(path)
        image = nib.load(path)
        np.testing.assert_array_equal(volume.affine, image.affine)
        assert volume.orientation == "".join(nib.aff2axcodes(image.affine))
        assert np.array_equal(volume.array, np.asanyarray(image.dataobj))
        mask = (volume.array if volume.array.ndim == 3 else volume.array[..., 0]) > 0
        write_mask(tmp_path / "mask.nii.gz", mask, volume)
        assert fields(tmp_path / "mask.nii.gz") == fields(path)
        written = nib.load(tmp_path / "mask.nii.gz")
        np.testing.assert_array_equal(written.affine, image.affine)
        assert np.array_equal(np.asanyarray(written.dataobj), mask)


@pytest.mark.parametrize(("dtype", "slope"), [("i2", 2.0), ("f8", None), (">f8", None)])
def test_reading_takes_no_second_copy(tmp_path, dtype, slope) -> None:
    """What has to be converted is converted on the way in."""
    if not reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    array = np.ones((256, 256, 200), dtype=dtype)
    path = stored(tmp_path / "scan.nii.gz", array, slope=slope, inter=0 if slope else None)
    del array
    read_volume(path)
    gc.collect()
    reset_peak()
    before = peak_memory_mb()
    volume = read_volume(path)
    assert volume.array.dtype == np.float32
    assert peak_memory_mb() < before + 1.2 * volume.array.nbytes / 1e6


floats = st.floats(-1e4, 1e4, width=32)


@st.composite
def headers(draw) -> nib.Nifti1Header:
    """What scanners and programs write, and some of what they should not."""
    header = nib.Nifti1Header(endianness=draw(st.sampled_from("<>")))
    shape = draw(st.lists(st.integers(1, 600), min_size=2, max_size=5))
    header.set_data_shape(shape)
    header.set_data_dtype(
        draw(st.sampled_from([*DTYPES, "c8", "c16"])) if draw(st.booleans()) else "i2"
    )
    header["pixdim"][1:4] = draw(
        st.lists(st.sampled_from([0.7, 0.783203125, 1, 5, 2.5]), min_size=3, max_size=3)
    )
    header["pixdim"][0] = draw(st.sampled_from([1, -1, 1, -1, 0]))
    header["qform_code"] = draw(st.integers(0, 4))
    header["sform_code"] = draw(st.sampled_from([0, 0, 1, 2, 4, 9]))
    quaternion = np.array(draw(st.lists(st.floats(-1, 1), min_size=4, max_size=4)))
    assume(np.linalg.norm(quaternion) > 1e-3)
    quaternion /= np.linalg.norm(quaternion) * draw(st.sampled_from([1, 1, 1, 0.9]))
    for name, value in zip("bcd", quaternion[1:], strict=True):
        header[f"quatern_{name}"] = value
    for name in "xyz":
        header[f"qoffset_{name}"] = draw(floats)
    grid = header.copy()
    if draw(st.booleans()) and 1 - np.square(quaternion[1:]).sum() > 1e-6:
        grid["pixdim"][0] = 1
        for row, name in enumerate("xyz"):
            header[f"srow_{name}"] = grid.get_qform()[row] * draw(st.sampled_from([1, 1, 1, -1]))
    else:
        for name in "xyz":
            header[f"srow_{name}"] = draw(st.lists(floats, min_size=4, max_size=4))
    header["xyzt_units"] = draw(st.sampled_from([0, 1, 2, 3, 10, 13]))
    header["scl_slope"] = draw(st.sampled_from([1, 0, 2.5, np.nan, np.inf]))
    header["scl_inter"] = draw(st.sampled_from([0, -1024, np.nan]))
    header["vox_offset"] = draw(st.sampled_from([352, 352, 0, 416, 1000]))
    header["magic"] = b"n+1"
    return header


def orthogonal(affine: np.ndarray) -> bool:
    products = affine[:3, :3].T @ affine[:3, :3]
    sizes = np.sqrt(np.diag(products))
    return bool((np.abs(products - np.diag(sizes**2)) <= 1e-4 * np.outer(sizes, sizes)).all())


def by_the_rule(header: nib.Nifti1Header) -> np.ndarray | None:
    """nibabel's affine of the form that counts, in mm; None where no simple rule tells."""
    try:
        qform, q_code = header.get_qform(coded=True)
    except ValueError:
        return None
    sform, s_code = header.get_sform(coded=True)
    affine = sform if s_code else qform if q_code else header.get_base_affine()
    if s_code and q_code:
        if not orthogonal(sform):
            return None  # sheared: the spacing may also be that between planes
        spacing = header["pixdim"][1:4]
        affine = sform if np.allclose(nib.affines.voxel_sizes(sform), spacing) else qform
    result = np.array(affine, np.float64)
    result[:3] *= {1: 1000, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1)
    return result


@settings(max_examples=400, deadline=None)
@given(headers())
def test_as_nibabel_reads_it(header: nib.Nifti1Header) -> None:
    found = _ordinary(header.binaryblock)
    checked = header.copy()
    problems = nib.Nifti1Header.diagnose_binaryblock(header.binaryblock, header.endianness)
    if found is None:
        return
    # Nothing that nibabel would repair is read here, but for offsets that SPM cannot map.
    assert not [line for line in problems.splitlines() if "divisible by 16" not in line]
    assert found.record.tobytes() == header.binaryblock
    assert found.shape == checked.get_data_shape()
    assert found.dtype == checked.get_data_dtype()
    assert found.first_voxel == checked.get_data_offset()
    slope_inter = checked.get_slope_inter()
    assert (found.slope, found.inter) == ((1.0, 0.0) if slope_inter[0] is None else slope_inter)
    expected = by_the_rule(checked)
    if expected is not None:
        assert found.affine.tobytes() == expected.tobytes()


def ordinary() -> nib.Nifti1Header:
    header = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.diag([-1, -1, 3, 1])).header.copy()
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sizeof_hdr", 540),
        ("magic", b"ni1"),
        ("datatype", 32),
        ("datatype", 77),
        ("dim", [2, 5, 6, 1, 1, 1, 1, 1]),
        ("dim", [8, 5, 6, 7, 1, 1, 1, 1]),
        ("dim", [3, 5, 0, 7, 1, 1, 1, 1]),
        ("dim", [3, -1, 1, 1, 1, 1, 1, 1]),
        ("dim", [3, 27307, 1, 6, 1, 1, 1, 1]),
        ("pixdim", [1, 0, 1, 1, 1, 1, 1, 1]),
        ("pixdim", [1, 1, -1, 1, 1, 1, 1, 1]),
        ("pixdim", [1, 1, np.nan, 1, 1, 1, 1, 1]),
        ("pixdim", [0, 1, 1, 1, 1, 1, 1, 1]),
        ("vox_offset", 300),
        ("vox_offset", np.inf),
        ("sform_code", 7),
        ("qform_code", -1),
        ("scl_inter", np.nan),
    ],
)
def test_whatever_needs_care_is_left_to_nibabel(name: str, value: object) -> None:
    header = ordinary()
    assert _ordinary(header.binaryblock) is not None
    if name == "scl_inter":
        header["scl_slope"] = 1
    header[name] = value
    assert _ordinary(header.binaryblock) is None


def test_an_ordinary_scan_is_read_and_its_mask_written_without_nibabel(tmp_path: Path) -> None:
    nib.save(
        nib.Nifti1Image(np.ones((5, 6, 7), np.int16), np.diag([-1, -1, 3, 1])),
        tmp_path / "s.nii.gz",
    )
    code = (
        "import sys, numpy as np\n"
        "from leanseg.volumes import read_volume, write_mask\n"
        f"scan = read_volume({str(tmp_path / 's.nii.gz')!r})\n"
        f"write_mask({str(tmp_path / 'm.nii.gz')!r}, scan.array > 0, like=scan)\n"
        "assert scan.orientation == 'LPS'\n"
        "print('nibabel' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert nib.load(tmp_path / "m.nii.gz").get_fdata().all()
