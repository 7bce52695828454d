"""Files by suffix, and what bad input gets."""

from __future__ import annotations

import gzip
import os
import resource
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.volumes import (
    VOLUME_SUFFIXES,
    Volume,
    is_volume_path,
    open_volume,
    read_volume,
    require_finite,
    volume_stem,
    write_mask,
    write_volume,
)

SCAN = Volume(np.zeros((3, 4, 5), np.int16), np.eye(4))


@pytest.mark.parametrize(
    ("name", "stem", "is_volume"),
    [
        ("a/scan.nii.gz", "scan", True),
        ("scan.1.nii", "scan.1", True),
        ("SCAN.NII.GZ", "SCAN", True),
        ("b.mha", "b", True),
        ("b.mhd", "b", True),
        ("b.seg.nrrd", "b.seg", True),
        ("._scan.nii.gz", "._scan", False),
        ("b.gz", "b", False),
        ("b.dcm", "b", False),
        ("dataset.json", "dataset", False),
    ],
)
def test_names(name, stem, is_volume):
    assert volume_stem(name) == stem
    assert is_volume_path(Path(name)) is is_volume


def test_upper_case_suffix(tmp_path):
    write_volume(tmp_path / "A.NII.GZ", SCAN)
    assert gzip.decompress((tmp_path / "A.NII.GZ").read_bytes())[344:348] == b"n+1\0"
    assert read_volume(tmp_path / "A.NII.GZ").shape == (3, 4, 5)


def bad_file(folder, kind):
    """A file that a user might well have."""
    suffix = ".nii" if kind == "text.nii" else ".nii.gz"
    path = folder / f"bad{suffix}"
    if kind.startswith("text"):
        path.write_text("This is a letter, not a scan.\n" * 40)
    elif kind == "short text":
        path.write_text("oh")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "truncated":
        write_volume(path, Volume(np.random.default_rng(0).normal(size=(9, 9, 9)), np.eye(4)))
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "gzipped text":
        path.write_bytes(gzip.compress(b"This is a letter, not a scan.\n" * 40))
    elif kind == "2-D":
        nib.Nifti1Image(np.zeros((9, 9)), np.eye(4)).to_filename(path)
    elif kind == "5-D":
        nib.Nifti1Image(np.zeros((3, 3, 3, 2, 3)), np.eye(4)).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("text.nii", FileFormatError, "not a NIfTI file"),
        ("text.nii.gz", FileFormatError, "not a NIfTI file"),
        ("short text", FileFormatError, "not a NIfTI file"),
        ("gzipped text", FileFormatError, "not a NIfTI file"),
        ("truncated", FileFormatError, "cut short"),
        ("empty", FileFormatError, "the file is empty"),
        ("folder", FileFormatError, "holds no DICOM files"),
        ("missing", FileFormatError, "no such file"),
        ("2-D", GeometryError, "found shape"),
        ("5-D", GeometryError, "found shape"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, kind, error, message):
    path = bad_file(tmp_path, kind)
    with pytest.raises(error, match=message) as caught:
        read_volume(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    assert ";" in sentence  # what to do


@pytest.mark.parametrize("name", ["scan.dcm", "scan.gz", "scan", "scan.img", "scan.png"])
def test_unknown_suffix_lists_the_known(tmp_path, name):
    with pytest.raises(FileFormatError) as caught:
        read_volume(tmp_path / name)
    assert all(suffix in str(caught.value) for suffix in VOLUME_SUFFIXES)
    with pytest.raises(FileFormatError, match="unknown kind of volume"):
        write_volume(tmp_path / name, SCAN)
    with pytest.raises(FileFormatError, match="unknown kind of volume"):
        write_mask(tmp_path / name, SCAN.array, SCAN)


def test_nan_voxels(tmp_path):
    array = np.zeros((3, 4, 5), np.float32)
    array[0, 1] = np.nan
    write_volume(tmp_path / "a.nii.gz", Volume(array, np.eye(4)))
    for volume in (read_volume(tmp_path / "a.nii.gz"), open_volume(tmp_path / "a.nii.gz")):
        with pytest.raises(LeansegError, match=r"a\.nii\.gz: 5 NaN or infinite of 60 voxels"):
            require_finite(volume)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
def test_unreadable_file(tmp_path):
    write_volume(tmp_path / "a.nii", SCAN)
    (tmp_path / "a.nii").chmod(0)
    with pytest.raises(FileFormatError, match="cannot be opened"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_missing_folder(tmp_path, suffix):
    with pytest.raises(LeansegError, match="cannot be written"):
        write_volume(tmp_path / "none" / f"a{suffix}", SCAN)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_hits_a_limit_leaves_the_old_one(tmp_path, suffix):
    """The operating system itself refuses, also where only the last buffer does not fit."""
    path = tmp_path / f"a{suffix}"
    write_volume(path, SCAN)
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 9)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    try:
        with pytest.raises(LeansegError, match="cannot be written"):
            write_volume(path, Volume(noise, np.eye(4)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_mask_of_another_shape(tmp_path):
    with pytest.raises(GeometryError, match=r"shape \(3, 4, 6\) does not fit"):
        write_mask(tmp_path / "m.nii", np.zeros((3, 4, 6), np.uint8), SCAN)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [(-1, np.int16, "0 to 65535"), (65536, np.int32, "0 to 65535"), (1, np.float32, "no labels")],
)
def test_values_that_are_no_labels(tmp_path, value, dtype, message):
    with pytest.raises(LeansegError, match=message):
        write_mask(tmp_path / "m.nii", np.full((3, 4, 5), value, dtype), SCAN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_complex_voxels_cannot_be_stored(tmp_path, suffix):
    with pytest.raises(LeansegError, match="complex64 cannot be stored"):
        write_volume(tmp_path / f"a{suffix}", Volume(np.zeros((3, 4, 5), np.complex64), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("highest", "dtype", "stored"),
    [
        (1, np.bool_, np.uint8),
        (255, np.uint8, np.uint8),
        (255, np.int64, np.uint8),
        (256, np.int32, np.uint16),
        (65535, np.uint16, np.uint16),
        (3, np.uint16, np.uint8),
    ],
)
@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_mask_types(tmp_path, highest, dtype, stored, suffix):
    mask = np.zeros((3, 4, 5), dtype)
    mask[1, 2, 3] = highest
    write_mask(tmp_path / f"m{suffix}", mask, SCAN)
    volume = read_volume(tmp_path / f"m{suffix}")
    assert volume.array.dtype == stored
    np.testing.assert_array_equal(volume.array, mask)
