"""Stored values to real ones: types, padding, MONOCHROME1, compression."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_writer import (
    compress,
    compress_with_dcmtk,
    set_pixels,
    volume_datasets,
    write_series,
    write_slices,
)
from leanseg.errors import FileFormatError
from leanseg.volumes import read_volume
from leanseg.volumes.dicom import find_series

from .conftest import AFFINE, itk_series, scan_array


def write_stored(folder, stored, intercept=0, slope=1, modality="CT", bits=None, **elements):
    """A series of stored values (i, j, k), as they are."""
    datasets = volume_datasets(
        np.zeros(stored.shape), AFFINE, intercept=intercept, slope=slope, modality=modality
    )
    for k, dataset in enumerate(datasets):
        set_pixels(dataset, np.ascontiguousarray(stored[:, :, k].T), bits)
        for keyword, value in elements.items():
            # Files mix up signed and unsigned ones.
            dataset.add_new(keyword, "SS" if value < 0 else "US", value)
    write_slices(folder, datasets)
    return folder


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", "<i2", "<u4", "<i4"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (2, 3), (0.5, 0)])
def test_every_type_keeps_its_values(tmp_path, rng, dtype, slope, intercept):
    info = np.iinfo(dtype)
    low, high = (max(info.min, -1000), min(info.max, 5000))
    stored = rng.integers(low, high, (5, 3, 4), endpoint=True).astype(dtype)
    folder = write_stored(tmp_path / "scan", stored, intercept, slope, "MR")
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, stored.astype(float) * slope + intercept)
    assert volume.array.dtype == (np.float32 if slope == 0.5 else np.int16)


@pytest.mark.parametrize(
    ("dtype", "value", "intercept", "expected"),
    [
        ("<u2", 32767, 0, np.int16),
        ("<u2", 32768, 0, np.float32),
        ("<u2", 33791, -1024, np.int16),
        ("<u2", 33792, -1024, np.float32),
        ("<u2", 65535, -32767, np.float32),
        ("<u2", 65534, -32767, np.int16),
        ("<i2", -32768, 0, np.int16),
        ("<i2", -32768, -1, np.float32),
        ("<i4", 100000, 0, np.float32),
    ],
)
def test_int16_where_values_fit_else_float32(tmp_path, dtype, value, intercept, expected):
    stored = np.zeros((3, 3, 4), dtype)
    stored[1, 2, 3] = value
    volume = read_volume(write_stored(tmp_path / "scan", stored, intercept, modality="MR"))
    assert volume.array.dtype == expected
    assert volume.array[1, 2, 3] == value + intercept
    assert volume.array[0, 0, 0] == intercept


@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
def test_unused_bits_are_ignored(tmp_path, rng, dtype):
    low = -2048 if dtype == "<i2" else 0
    values = rng.integers(low, low + 4096, (6, 5, 4))
    # Twelve bits are used; old devices keep overlays in the other four.
    dirty = (values & 0xFFF) | rng.integers(0, 16, values.shape) << 12
    stored = dirty.astype("<u2").view(dtype)
    folder = write_stored(tmp_path / "scan", stored, modality="MR", bits=12)
    np.testing.assert_array_equal(read_volume(folder).array, values)


def test_used_bits_may_be_the_upper_ones(tmp_path, rng):
    values = rng.integers(0, 4096, (6, 5, 4))
    stored = (values << 4 | rng.integers(0, 16, values.shape)).astype("<u2")
    folder = write_stored(tmp_path / "scan", stored, modality="MR", bits=12, HighBit=15)
    np.testing.assert_array_equal(read_volume(folder).array, values)


@pytest.mark.parametrize(
    ("stored_padding", "elements", "dtype"),
    [
        (-2000, {}, "<i2"),
        (-32768, {}, "<i2"),
        (-2000, {"PixelPaddingValue": -2000}, "<i2"),
        (-2000, {"PixelPaddingValue": 63536}, "<i2"),
        (-1020, {"PixelPaddingValue": -1020}, "<i2"),
        (-1020, {"PixelPaddingValue": -1100, "PixelPaddingRangeLimit": -1010}, "<i2"),
        (65535, {"PixelPaddingValue": 65535}, "<u2"),
        (9000, {"PixelPaddingValue": 9000}, "<u2"),
    ],
)
def test_ct_padding_becomes_air(tmp_path, stored_padding, elements, dtype):
    intercept = -1024 if dtype == "<u2" or stored_padding < -1100 else 0
    hu = scan_array((6, 6, 5)).astype(int)
    stored = hu - intercept
    padded = np.hypot(*np.ogrid[-2.5:3:1, -2.5:3:1]) > 3
    stored[padded] = stored_padding
    folder = write_stored(tmp_path / "scan", stored.astype(dtype), intercept, **elements)
    volume = read_volume(folder)
    assert volume.array.dtype == np.int16
    assert (volume.array[padded] == -1024).all()
    np.testing.assert_array_equal(volume.array[~padded], hu[~padded])


def test_low_but_real_hounsfield_units_stay(tmp_path):
    hu = np.linspace(-1400, 3000, 60).astype(np.int16).reshape(3, 4, 5)
    np.testing.assert_array_equal(read_volume(write_stored(tmp_path / "scan", hu)).array, hu)


def test_padding_that_is_also_tissue_stays_and_is_told(tmp_path):
    hu = scan_array()
    hu[:3] = 0
    folder = write_stored(tmp_path / "scan", hu, PixelPaddingValue=0)
    np.testing.assert_array_equal(read_volume(folder).array, hu)
    (series,) = find_series(folder).series
    assert series.padding == "stored 0, rescaled 0"
    assert "is also that of a tissue and is left as it is" in series.notes[0]


def test_mr_has_no_padding(tmp_path):
    grey = scan_array() * 9
    folder = write_stored(tmp_path / "scan", grey, modality="MR", PixelPaddingValue=int(grey.min()))
    np.testing.assert_array_equal(read_volume(folder).array, grey)


@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
def test_monochrome1_is_inverted_for_grey_values_as_simpleitk_does(tmp_path, dtype):
    array = scan_array() + 1000
    options = {"photometric": "MONOCHROME1", "dtype": dtype, "intercept": 0}
    write_series(tmp_path / "mr", array, AFFINE, modality="MR", **options)
    theirs, _ = itk_series(tmp_path / "mr")
    np.testing.assert_array_equal(read_volume(tmp_path / "mr").array, theirs)
    assert "inverted" in find_series(tmp_path / "mr").series[0].notes[0]
    # Hounsfield units come before the presentation, so dark and bright do not change them.
    write_series(tmp_path / "ct", array, AFFINE, **options)
    np.testing.assert_array_equal(read_volume(tmp_path / "ct").array, array)
    assert "left as they are" in find_series(tmp_path / "ct").series[0].notes[0]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless, JPEGLosslessSV1])
@pytest.mark.parametrize(("dtype", "bits"), [("<u2", 12), ("<u2", 16), ("<i2", 16)])
def test_lossless_compression_changes_nothing(tmp_path, syntax, dtype, bits):
    if syntax == JPEGLosslessSV1 and shutil.which("dcmcjpeg") is None:
        pytest.skip("DCMTK's dcmcjpeg is not installed")
    array = scan_array((40, 36, 3))
    datasets = volume_datasets(array, AFFINE, dtype=dtype, bits_stored=bits)
    if dtype == "<i2":
        datasets = volume_datasets(array, AFFINE, intercept=0)
    datasets = [compress(dataset, syntax) for dataset in datasets]
    write_slices(tmp_path / "scan", datasets)
    volume = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, array)
    (series,) = find_series(tmp_path / "scan").series
    assert series.transfer_syntax == syntax.name
    theirs, grid = itk_series(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, theirs)
    np.testing.assert_array_equal(volume.affine, grid)


def smooth_scan(highest):
    ramp = np.add.outer(np.add.outer(np.arange(48), np.arange(40)), np.arange(3))
    return ramp * highest // int(ramp.max())


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="DCMTK's dcmcjpeg is not installed")
def test_lossy_jpeg_is_read_as_simpleitk_reads_it(tmp_path):
    array = smooth_scan(250)
    datasets = volume_datasets(array, AFFINE, modality="MR", dtype="u1", intercept=0)
    datasets = [compress_with_dcmtk(d, "+eb", "+q", "95") for d in datasets]
    assert datasets[0].file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    write_slices(tmp_path / "scan", datasets)
    volume = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, itk_series(tmp_path / "scan")[0])
    assert np.abs(volume.array - array).max() < 10


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="DCMTK's dcmcjpeg is not installed")
def test_lossy_jpeg_of_12_bits_is_refused(tmp_path):
    datasets = volume_datasets(smooth_scan(3000), AFFINE, dtype="<u2", bits_stored=12)
    write_slices(tmp_path / "scan", [compress_with_dcmtk(d, "+ee", "+q", "95") for d in datasets])
    with pytest.raises(FileFormatError, match=r"as JPEG Extended .* cannot be decoded"):
        read_volume(tmp_path / "scan")


def test_a_frame_in_several_fragments(tmp_path):
    from pydicom.encaps import encapsulate, generate_frames

    array = scan_array((40, 36, 3))
    datasets = [compress(d, JPEG2000Lossless) for d in volume_datasets(array, AFFINE)]
    for dataset in datasets:
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.PixelData = encapsulate([frame], fragments_per_frame=3)
    write_slices(tmp_path / "scan", datasets)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, array)
