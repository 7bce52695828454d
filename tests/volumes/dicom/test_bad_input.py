"""What damaged or contradictory files get: one sentence that names the file and what to do."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from dicom_writer import compress, set_pixels, volume_datasets, write_series, write_slices
from leanseg.errors import FileFormatError, GeometryError, MissingDependencyError
from leanseg.volumes import read_volume
from leanseg.volumes.dicom import find_series, is_dicom

from .conftest import AFFINE, scan_array

NAME = "Weiß^Änne"
POSITION, DIRECTION = "ImagePositionPatient", "ImageOrientationPatient"


def one_sentence(error) -> str:
    text = str(error.value)
    assert text.count("\n") == 0
    assert not any(word in text for word in ("Weiß", "nne", "ID-", "19700101", "Traceback"))
    return text


def refused(tmp_path, change, error, message, n=6, **options):
    """A series whose fourth slice is changed, in memory, is refused with a message."""
    datasets = volume_datasets(scan_array((8, 8, n)), AFFINE, patient=NAME)
    change(datasets[3])
    folder = tmp_path / "Fälle" / "scan"
    write_slices(folder, datasets)
    with pytest.raises(error, match=message) as caught:
        read_volume(folder, **options)
    assert "Fälle" in one_sentence(caught)


def no_pixels(ds):
    del ds.PixelData


def short_pixels(ds):
    ds.PixelData = ds.PixelData[:-20]


def put(keyword, value):
    def change(ds):
        with np.errstate(all="ignore"):
            elem = pydicom.DataElement(
                keyword, pydicom.datadict.dictionary_VR(keyword), value, validation_mode=0
            )
        ds[keyword] = elem

    return change


def drop(*keywords):
    def change(ds):
        for keyword in keywords:
            delattr(ds, keyword)

    return change


def smaller(ds):
    set_pixels(ds, ds.pixel_array[:-1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (no_pixels, FileFormatError, "has no pixel data .cut short, or exported without"),
        (short_pixels, FileFormatError, "has 108 of 128 bytes of pixel data"),
        (put("Rows", 65535), FileFormatError, "has 128 of 1048560 bytes"),
        (put("Columns", 0), FileFormatError, "its Rows, Columns, "),
        (put("BitsAllocated", 12), FileFormatError, "its Rows, Columns, "),
        (put("BitsStored", 17), FileFormatError, "its Rows, Columns, "),
        (put("NumberOfFrames", 4), FileFormatError, "has 128 of 512 bytes"),
        (smaller, GeometryError, "has 8 x 7 pixels of 0.7 x 0.8 mm, but IM0000 8 x 8 pixels"),
        (put("PixelSpacing", [0.9, 0.9]), GeometryError, "has 8 x 8 pixels of 0.9 x 0.9 mm, but"),
        (put("PixelSpacing", [0, 0]), GeometryError, "its PixelSpacing is missing or makes no"),
        (put("PixelSpacing", [1]), GeometryError, "its PixelSpacing is missing or makes no"),
        (drop("PixelSpacing"), GeometryError, "its PixelSpacing is missing or makes no"),
        (put("RescaleSlope", "NaN"), GeometryError, "its RescaleSlope is missing or makes no"),
        (put("RescaleSlope", 0), GeometryError, "its RescaleSlope is missing or makes no"),
        (put("RescaleIntercept", "NaN"), GeometryError, "its RescaleIntercept is missing or"),
        *(
            (put(POSITION, value), GeometryError, f"its {POSITION} is missing or makes no sense")
            for value in (["nan", "0", "0"], ["1e30", "0", "0"])
        ),
        (drop(POSITION), GeometryError, f"its {POSITION} is missing or makes no sense"),
        *(
            (put(DIRECTION, value), GeometryError, f"its {DIRECTION} is missing or makes no sense")
            for value in ([2, 0, 0, 0, 1, 0], [1, 0, 0, 0.6, 0.8, 0])
        ),
    ],
)
def test_a_bad_slice_is_named(tmp_path, change, error, message):
    refused(tmp_path, change, error, f"IM0003: {message}")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("number", [3, 5])
def test_a_truncated_file_is_named(tmp_path, share, number):
    array = scan_array((32, 32, 6))
    files = write_series(tmp_path / "scan", array, AFFINE, patient=NAME)
    content = files[number].read_bytes()
    files[number].write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match=f"IM{number:04d}: ") as caught:
        read_volume(tmp_path / "scan")
    one_sentence(caught)


def test_one_bad_file_does_not_hide_the_others(tmp_path, array, affine):
    write_series(tmp_path / "a", array, affine)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x99" * 400)
    (tmp_path / "b" / "y.dcm").touch()
    (tmp_path / "b" / "z.dcm").write_text("<html>not found</html>" * 20)
    inventory = find_series(tmp_path)
    assert len(inventory.series) == 1
    assert [skipped.removeprefix(f"{tmp_path}/b/") for skipped in inventory.skipped] == [
        "x.dcm: the header is damaged or cut short",
        "y.dcm: is empty",
        "z.dcm: is not DICOM, whatever its name says",
    ]
    np.testing.assert_array_equal(read_volume(tmp_path).array, array)
    (tmp_path / "b" / "y.dcm").rename(tmp_path / "a" / "IM9.dcm")
    with pytest.raises(FileFormatError, match=r"IM9.dcm: is empty; it may be a slice"):
        read_volume(tmp_path)


def test_nothing_to_read(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("hello, this is no scan at all" * 20)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name, message in {
        "folder": "holds no DICOM files",
        "empty.dcm": "is empty; copy or export it again",
        "text.dcm": "is not DICOM, whatever its name says",
        "empty.zip": "holds no DICOM files",
        "nowhere": "there is no such file",
        "nowhere.dcm": "there is no such file",
    }.items():
        if not name.startswith("nowhere"):
            assert not is_dicom(tmp_path / name)
        with pytest.raises(FileFormatError, match=message) as caught:
            find_series(tmp_path / name)
        one_sentence(caught)
        with pytest.raises(FileFormatError):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
    ],
)
def test_an_unsupported_transfer_syntax_is_named(tmp_path, uid, name):
    datasets = [compress(d, RLELossless) for d in volume_datasets(scan_array(), AFFINE)]
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = uid
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(MissingDependencyError, match=f"stored as {name} .*no package reads it"):
        read_volume(tmp_path / "scan")


def test_a_missing_plugin_is_named_with_its_package(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder as Decoder

    datasets = [
        compress(d, JPEG2000Lossless) for d in volume_datasets(scan_array((40, 40, 4)), AFFINE)
    ]
    write_slices(tmp_path / "scan", datasets)
    monkeypatch.setattr(Decoder, "_available", {})
    monkeypatch.setattr(Decoder, "_unavailable", {"pylibjpeg": ("pylibjpeg-openjpeg>=2.0",)})
    message = r"is stored as JPEG 2000 .*pylibjpeg-openjpeg>=2.0"
    with pytest.raises(MissingDependencyError, match=message) as caught:
        read_volume(tmp_path / "scan")
    one_sentence(caught)


def test_pydicom_missing_is_told(tmp_path, monkeypatch):
    import sys

    write_series(tmp_path / "scan", scan_array(), AFFINE)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert is_dicom(tmp_path / "scan")
    with pytest.raises(MissingDependencyError, match=r'pip install "leanseg\[dicom\]"'):
        read_volume(tmp_path / "scan")


def test_deflated_files_are_refused_by_name(tmp_path):
    datasets = volume_datasets(scan_array(), AFFINE)
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(FileFormatError, match="is stored as Deflated Explicit VR Little Endian"):
        read_volume(tmp_path / "scan")


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    datasets = volume_datasets(scan_array((40, 40, 4)), AFFINE)
    large = volume_datasets(scan_array((48, 48, 4)), AFFINE)
    for small, other in zip(datasets, large, strict=True):
        compress(small, JPEG2000Lossless)
        small.PixelData = compress(other, JPEG2000Lossless).PixelData
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(FileFormatError, match="should hold 40 x 40 grey values as JPEG 2000"):
        read_volume(tmp_path / "scan")


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="DCMTK's dcmcjpeg is not installed")
@pytest.mark.parametrize("damage", ["marker", "second frame", "frame type", "precision"])
def test_jpeg_that_would_end_the_process_is_refused(tmp_path, damage):
    datasets = [compress(d, JPEGLosslessSV1) for d in volume_datasets(scan_array(), AFFINE)]
    content = datasets[2].PixelData
    start = content.index(b"\xff\xc3")
    frame = content[start : start + 13]
    changed = {
        "marker": b"\xfe" + content[start + 14 : start + 15],
        "second frame": frame,
        "frame type": None,
        "precision": None,
    }[damage]
    if damage == "frame type":
        content = content.replace(b"\xff\xc3", b"\xff\xc1", 1)
    elif damage == "precision":
        content = content[: start + 4] + b"\x63" + content[start + 5 :]
    else:
        content = content[: start + 13] + changed + content[start + 13 + len(changed) :]
    datasets[2].PixelData = content
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(FileFormatError, match=r"IM0002: should hold .* pixel data are damaged"):
        read_volume(tmp_path / "scan")


def test_absurd_sizes_are_refused_before_room_is_made(tmp_path):
    datasets = [compress(d, RLELossless) for d in volume_datasets(scan_array(), AFFINE)]
    for dataset in datasets:
        dataset.Rows = dataset.Columns = 60000
    write_slices(tmp_path / "scan", datasets)
    with pytest.raises(FileFormatError, match=r"should hold 60000 x 60000 grey values .* too few"):
        read_volume(tmp_path / "scan")


def test_slices_displaced_too_far_are_no_tilt(tmp_path):
    affine = AFFINE.copy()
    affine[1, 2] = 5.0
    write_series(tmp_path / "scan", scan_array(), affine)
    with pytest.raises(GeometryError, match="displaced along one another by 63 degrees"):
        read_volume(tmp_path / "scan")
