"""MetaImage and NRRD headers of every kind: equal to SimpleITK, or refused in a sentence."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.errors import LeansegError
from leanseg.volumes import open_volume, read_volume

TYPES = {
    "i1": ("MET_CHAR", "signed char"), "u1": ("MET_UCHAR", "uint8"), "i2": ("MET_SHORT", "short"),
    "u2": ("MET_USHORT", "unsigned short int"), "i4": ("MET_LONG", "int32"),
    "u4": ("MET_UINT", "unsigned int"), "i8": ("MET_LONG_LONG", "long long int"),
    "f4": ("MET_FLOAT", "float"), "f8": ("MET_DOUBLE", "double"),
}  # fmt: skip
META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3",
    "ElementSpacing": "1 2 3", "DimSize": "3 4 5", "ElementNumberOfChannels": "1",
    "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
}  # fmt: skip
NRRD = {
    "type": "int16", "dimension": "3", "space": "left-posterior-superior", "sizes": "3 4 5",
    "space directions": "(1,0,0) (0,2,0) (0,0,3)", "kinds": "domain domain domain",
    "endian": "little", "encoding": "raw", "space origin": "(1,2,3)",
}  # fmt: skip
VOXELS = np.arange(60, dtype="<i2").tobytes()


def meta(fields):
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode()


def nrrd(fields):
    return ("NRRD0004\n" + "".join(f"{k}: {v}\n" for k, v in fields.items()) + "\n").encode()


def itk(path):
    """Voxels (i, j, k[, channel]) and affine, as SimpleITK has them."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    n = image.GetDimension()
    array = array.transpose((*reversed(range(n)), *range(n, array.ndim)))
    corners = np.vstack([np.zeros(n, int), np.eye(n, dtype=int)[:3]]).tolist()
    points = [np.array(image.TransformIndexToPhysicalPoint(c))[:3] * (-1, -1, 1) for c in corners]
    affine = np.eye(4)
    affine[:3] = np.column_stack([*(point - points[0] for point in points[1:]), points[0]])
    return array, affine


def assert_as_itk(path):
    volume, (array, affine) = read_volume(path), itk(path)
    with np.errstate(over="ignore"):
        expected = array.astype(np.float32) if array.dtype.kind == "f" else array
    assert volume.array.dtype == expected.dtype
    np.testing.assert_array_equal(volume.array, expected)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)


numbers = st.floats(-200, 200).map(lambda x: round(x, 4))
steps = st.floats(0.1, 10).map(lambda x: round(x, 3))


@st.composite
def stored(draw):
    """Type, shape with channels first, and bytes of an array; directions, spacing and origin."""
    kind, big = draw(st.sampled_from(sorted(TYPES))), draw(st.booleans())
    shape = (draw(st.integers(1, 3)), *draw(st.tuples(*[st.integers(2, 5)] * 3)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    array = rng.integers(0, 100, shape).astype((">" if big else "<") + kind)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if draw(st.booleans()):
        turn[:, 0] += 0.3 * turn[:, 1]  # a shear
    spacing, origin = draw(st.tuples(*[steps] * 3)), draw(st.tuples(*[numbers] * 3))
    return kind, big, array, turn, spacing, origin


@settings(max_examples=60, deadline=None)
@given(stored(), st.booleans(), st.booleans(), st.sampled_from(["Offset", "Position", "Origin"]))
def test_every_sound_metaimage_is_read_as_simpleitk_reads_it(given, packed, beside, origin_name):
    kind, big, array, turn, spacing, origin = given
    data = array.tobytes(order="F")
    fields = META | {
        "BinaryDataByteOrderMSB": big, "DimSize": "{1} {2} {3}".format(*array.shape),
        "TransformMatrix": " ".join(map(repr, turn.T.ravel().tolist())),
        "ElementSpacing": "{} {} {}".format(*spacing), "ElementType": TYPES[kind][0],
        "ElementNumberOfChannels": len(array), "CompressedData": packed,
    }  # fmt: skip
    data = zlib.compress(data) if packed else data
    del fields["Offset"], fields["ElementDataFile"]
    fields |= {origin_name: "{} {} {}".format(*origin), "CompressedDataSize": len(data)}
    fields["ElementDataFile"] = "a.raw" if beside else "LOCAL"
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("a.mhd" if beside else "a.mha")
        path.write_bytes(meta(fields) + (b"" if beside else data))
        (Path(folder) / "a.raw").write_bytes(data)
        assert_as_itk(path)


@settings(max_examples=60, deadline=None)
@given(
    stored(), st.booleans(), st.booleans(), st.sampled_from(["LPS", "RAS", "LAS"]), st.booleans()
)
def test_every_sound_nrrd_is_read_as_simpleitk_reads_it(given, packed, beside, space, last):
    kind, big, array, turn, spacing, origin = given
    channels_first = len(array) > 1 and not last
    array = array if channels_first else np.moveaxis(array, 0, -1)
    array = array[..., 0] if array.shape[-1] == 1 else array
    vectors = ["({}, {}, {})".format(*column.tolist()) for column in (turn * spacing).T]
    none, vector = (["none"], ["vector"]) if array.ndim == 4 else ([], [])
    fields = NRRD | {
        "type": TYPES[kind][1], "dimension": array.ndim, "endian": "big" if big else "little",
        "space": space, "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join(none + vectors if channels_first else vectors + none),
        "kinds": " ".join(vector + ["domain"] * 3 if channels_first else ["space"] * 3 + vector),
        "space origin": "({},{},{})".format(*origin), "encoding": "gzip" if packed else "raw",
    }  # fmt: skip
    data = array.tobytes(order="F")
    data = gzip.compress(data) if packed else data
    if beside:
        fields["data file"] = "a.raw"
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.nrrd").write_bytes(nrrd(fields) + (b"" if beside else data))
        (Path(folder) / "a.raw").write_bytes(data)
        assert_as_itk(Path(folder) / "a.nrrd")


@pytest.mark.parametrize(
    ("suffix", "changes", "data"),
    [
        (".mhd", {"HeaderSize": 4}, b"abcd" + VOXELS),
        (".mhd", {"HeaderSize": -1}, b"abcdef" + VOXELS),
        (".mha", {"HeaderSize": -1}, b"abcdef" + VOXELS),
        (".mha", {"ElementSpacing": "1 -2 3"}, VOXELS),
        (".mha", {"AnatomicalOrientation": "RAI", "CenterOfRotation": "9 9 9"}, VOXELS),
        (".mha", {"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, VOXELS),
        (".mha", {}, VOXELS + b"more"),
        (".nrrd", {"byte skip": 4}, b"abcd" + VOXELS),
        (".nrrd", {"byte skip": -1}, b"abcd" + VOXELS),
        (".nrrd", {"line skip": 1, "byteskip": 3}, b"one\nabc" + VOXELS),
        (".nrrd", {"encoding": "gz"}, gzip.compress(VOXELS[:50]) + gzip.compress(VOXELS[50:])),
        (".nrrd", {"kinds": "domain space ???"}, VOXELS),
        (".nrrd", {"measurement frame": "(1,0,0) (0,1,0) (0,0,1)"}, VOXELS),
        (".nrrd", {"space": None, "space directions": None, "space origin": None}, VOXELS),
        (".nrrd", {"space": None, "space directions": None, "space origin": None,
                   "spacings": "1 -2 nan"}, VOXELS),
        (".nrrd", {"# a comment": "", "key:=value": ": more"}, VOXELS),
    ],
)  # fmt: skip
def test_odd_but_sound_headers_are_read_as_simpleitk_reads_them(tmp_path, suffix, changes, data):
    path, is_beside = tmp_path / f"a{suffix}", suffix == ".mhd"
    (tmp_path / "a.raw").write_bytes(data)
    usual, last = (NRRD, {}) if suffix == ".nrrd" else (META, {"ElementDataFile": "LOCAL"})
    last = {"ElementDataFile": "a.raw"} if is_beside else last
    fields = {key: value for key, value in usual.items() if key not in last} | changes | last
    fields = {key: value for key, value in fields.items() if value is not None}
    header = (nrrd if suffix == ".nrrd" else meta)(fields)
    path.write_bytes(header + (b"" if is_beside else data))
    assert_as_itk(path)


def test_what_simpleitk_gets_wrong(tmp_path):
    """It hands out the packed bytes as voxels where their number is not given."""
    packed = zlib.compress(VOXELS)
    header = meta(
        {"CompressedData": "True"} | {k: v for k, v in META.items() if k != "CompressedData"}
    )
    (tmp_path / "a.mha").write_bytes(header + packed)
    expected = np.frombuffer(VOXELS, "<i2").reshape(3, 4, 5, order="F")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mha").array, expected)
    damaged = bytearray(packed)
    damaged[20] ^= 8
    (tmp_path / "a.mha").write_bytes(header + damaged)
    with pytest.raises(LeansegError, match=r"a\.mha: cannot be read"):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("unit", "factor"), [("mm", 1), ("um", 0.001), ("cm", 10), ("m", 1000), ("?", 1)]
)
def test_lengths_are_millimetres(tmp_path, unit, factor):
    (tmp_path / "a.mha").write_bytes(meta({"DistanceUnits": unit} | META) + VOXELS)
    units = " ".join([f'"{unit}"'] * 3)
    (tmp_path / "b.nrrd").write_bytes(nrrd(NRRD | {"space units": units}) + VOXELS)
    bare = {k: v for k, v in NRRD.items() if not k.startswith("space")}
    (tmp_path / "c.nrrd").write_bytes(nrrd(bare | {"spacings": "1 2 3", "units": units}) + VOXELS)
    for name in ("a.mha", "b.nrrd", "c.nrrd"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_allclose(volume.spacing_mm, np.array([1, 2, 3]) * factor)
        where = (0, 0, 0) if name == "c.nrrd" else np.array([-1, -2, 3]) * factor
        np.testing.assert_allclose(volume.affine[:3, 3], where)


EVIL = [
    "-1", "0", "9" * 300, "1" * 5000, "nan", "inf", "-inf", "1e400", "", "x", "3.5", "1 2",
    "99999999 99999999 99999999", "-3 -4 5", "4294967296 4294967296 1", "0 0 0", "nan nan nan",
    "1e308 1e308 1e308", "1 0 0 1 0 0 1 0 0", "True", "MET_OTHER", "LIST", "/dev/zero", "../a.raw",
    "slice%03d.raw 1 10 1", "slice%999999999d.raw 1 10 1", "a.mha", "a.nrrd", ".", "a\0b", "\udcff",
    "1\0 2 3", "²",
    "1_0 1_0 1_0", "(1,0,0) (0,1,0)", "(1,0) (0,1) (0,0)", "none none none", "((1,0,0)",
    "scanner-xyz", "block", "bzip2", "hex", "ascii", "gzip", "complex domain domain", "list " * 9,
    '"parsec" "parsec" "parsec"', '"mm" "cm" "mm"',
]  # fmt: skip
FIELDS = [
    *((".mha", key) for key in (*META, "HeaderSize", "CompressedDataSize", "DistanceUnits",
      "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset")),
    *((".nrrd", key) for key in (*NRRD, "data file", "byte skip", "line skip", "spacings",
      "axis mins", "space units", "units", "spacce origin", "space dimension")),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "key"), FIELDS)
def test_no_value_of_a_field_does_harm(tmp_path, suffix, key):
    """Refused in a sentence, or of no effect; SimpleITK is not asked, which might end the tests."""
    usual, write = (NRRD, nrrd) if suffix == ".nrrd" else (META, meta)
    plain = tmp_path / f"plain{suffix}"
    plain.write_bytes(write(usual) + VOXELS)
    for value in EVIL:
        fields = {key: value} | {k: value if k == key else v for k, v in usual.items()}
        path = tmp_path / f"a{suffix}"
        header = "".join(f"{k}{'=' if suffix == '.mha' else ':'} {v}\n" for k, v in fields.items())
        start = "NRRD0004\n" if suffix == ".nrrd" else ""
        end = "\n" if suffix == ".nrrd" else ""
        path.write_bytes((start + header + end).encode(errors="surrogateescape") + VOXELS)
        try:
            volume = read_volume(path)
        except LeansegError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            assert len(str(error)) < 500
        else:
            assert volume.array.nbytes <= len(VOXELS)
            assert np.isfinite(volume.affine).all()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damage_does_harm(data):
    """Bytes changed, left out or put in anywhere."""
    suffix = data.draw(st.sampled_from([".mha", ".nrrd"]))
    packed = data.draw(st.booleans())
    fields = NRRD | {"encoding": "gzip" if packed else "raw"}
    header = meta({"CompressedData": str(packed)} | META) if suffix == ".mha" else nrrd(fields)
    if suffix == ".mha":
        header = header.replace(b"CompressedData = False\n", b"") if packed else header
    content = bytearray(header + (gzip.compress(VOXELS) if packed else VOXELS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        try:
            read_volume(path)
        except LeansegError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["a.mhd", "a.nrrd"])
def test_voxels_lie_in_another_file_of_the_folder(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "outside.raw").write_bytes(VOXELS)
    path = tmp_path / "in" / name
    for named, why in [
        ("../outside.raw", "not in its folder"), (tmp_path / "outside.raw", "not in its folder"),
        (name, "missing"), ("absent.raw", "missing"), ("/dev/zero", "not in its folder"),
        ("LIST", "missing"), ("slice%03d.raw 1 5 1", "missing"),
    ]:  # fmt: skip
        fields = META | {"ElementDataFile": named}
        path.write_bytes(meta(fields) if name == "a.mhd" else nrrd(NRRD | {"data file": named}))
        with pytest.raises(LeansegError, match=why):
            read_volume(path)


@pytest.mark.parametrize("packed", ["False", "True"])
def test_a_promise_that_the_file_cannot_hold_is_refused_by_the_header_alone(tmp_path, packed):
    """Before memory is taken for it; deflate packs no more than 1032 bytes into one."""
    path = tmp_path / "a.mha"
    changes = {"CompressedData": packed, "DimSize": "20000 20000 20000"}
    path.write_bytes(meta({**META, **changes}) + VOXELS)
    with pytest.raises(LeansegError, match=r"a\.mha: .* holds fewer voxels than its header says"):
        open_volume(path)
