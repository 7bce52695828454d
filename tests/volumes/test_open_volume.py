"""What headers say, and slabs as they stream, against what reading gives."""

from __future__ import annotations

import gc
import gzip
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_writer import write_series
from leanseg.errors import FileFormatError, GeometryError
from leanseg.inference.memory import peak_memory_mb, reset_peak
from leanseg.volumes import Volume, open_volume, read_volume, write_volume

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, -3.0, 30], [0, 0, 0, 1]])


def assert_kept(path, **options) -> None:
    stored, volume = open_volume(path, **options), read_volume(path, **options)
    for name in ("array_shape", "shape", "dtype", "n_channels", "n_bytes", "spacing_mm"):
        assert getattr(stored, name) == getattr(volume, name), name
    assert stored.n_bytes == volume.array.nbytes
    np.testing.assert_array_equal(stored.affine, volume.affine)
    assert stored.orientation == volume.orientation
    assert stored.path == volume.path == path
    for planes, start in ((1, 0), (2, 0), (2, 1), (100, 2)):
        for source in (stored, volume):
            parts = list(source.slabs(planes, start))
            assert all(part.dtype == volume.dtype for part in parts)
            assert all(part.shape[2] == planes for part in parts[:-1])
            np.testing.assert_array_equal(np.concatenate(parts, 2), volume.array[:, :, start:])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("slope", [None, 0.5])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 2)])
def test_nifti(tmp_path, suffix, dtype, slope, shape) -> None:
    image = nib.Nifti1Image(np.ones(shape, dtype=dtype), AFFINE)
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nib.save(image, tmp_path / f"scan{suffix}")
    assert_kept(tmp_path / f"scan{suffix}")


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("vector", [False, True])
def test_itk(tmp_path, suffix, dtype, vector) -> None:
    array = np.ones((3, 4, 5, 2) if vector else (3, 4, 5), dtype=dtype)
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing((0.7, 0.8, 2.5))
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"), useCompression=suffix == ".mha")
    assert_kept(tmp_path / f"scan{suffix}")


DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
LPS = np.diag([-0.7, -0.7, 2.5, 1.0])


def hounsfield(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-1000, 1000, size=(6, 5, 4)).astype(np.int16)


def test_dicom(tmp_path, rng) -> None:
    write_series(tmp_path / "ct", hounsfield(rng), LPS, dtype="<u2", bits_stored=12)
    assert_kept(tmp_path / "ct")


def test_dicom_of_fractions(tmp_path, rng) -> None:
    array = hounsfield(rng) / 2 + 0.25
    write_series(tmp_path / "ct", array, LPS, slope=0.25, intercept=0.0)
    assert_kept(tmp_path / "ct")


def test_dicom_whose_values_might_not_fit(tmp_path, rng) -> None:
    """Only the voxels tell whether two bytes are enough."""
    write_series(tmp_path / "ct", hounsfield(rng), LPS, dtype="<u2", bits_stored=16)
    assert read_volume(tmp_path / "ct").array.dtype == np.int16
    assert open_volume(tmp_path / "ct").dtype == np.float32


def test_tilted_gantry(tmp_path, rng) -> None:
    sheared = LPS.copy()
    sheared[1, 2] = 0.9
    write_series(tmp_path / "ct", hounsfield(rng), sheared, dtype="<u2", bits_stored=12)
    assert_kept(tmp_path / "ct")
    shape = read_volume(tmp_path / "ct").shape
    assert shape != (6, 5, 4)


def test_inside_a_zip_file(tmp_path) -> None:
    import zipfile

    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.int16), AFFINE), tmp_path / "a.nii.gz")
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.write(tmp_path / "a.nii.gz", "a.nii.gz")
    assert_kept(tmp_path / "scans.zip" / "a.nii.gz")


def sparse(path, shape) -> None:
    """A file with holes for voxels."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with path.open("wb") as file:
        file.write(header.binaryblock)
        file.truncate(352 + 2 * math.prod(shape))


def test_a_scan_larger_than_memory_takes_none(tmp_path) -> None:
    sparse(tmp_path / "scan.nii", (2000, 2000, 30000))
    scan = open_volume(tmp_path / "scan.nii")
    assert scan.n_bytes == 2 * 2000 * 2000 * 30000
    assert next(scan.slabs(1, start=20000)).shape == (2000, 2000, 1)


def test_what_is_no_scan(tmp_path) -> None:
    with pytest.raises(FileFormatError, match="there is no such file"):
        open_volume(tmp_path / "none.nii.gz")
    (tmp_path / "text.mha").write_text("nothing")
    with pytest.raises(FileFormatError, match="not a MetaImage or NRRD file"):
        open_volume(tmp_path / "text.mha")
    nib.save(nib.Nifti1Image(np.ones((3, 4), np.int16), AFFINE), tmp_path / "flat.nii.gz")
    with pytest.raises(GeometryError, match="3-D"):
        open_volume(tmp_path / "flat.nii.gz")


@st.composite
def nifti_files(draw) -> tuple[bytes, str]:
    """A NIfTI-1 or NIfTI-2 file of any type, order, scaling and orientation."""
    order = draw(st.sampled_from("<>"))
    kind = draw(st.sampled_from([nib.Nifti1Header, nib.Nifti2Header]))
    header = kind(endianness=order)
    dtype = np.dtype(
        draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]))
    )
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    axes = draw(st.permutations(range(3)))
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[axes] * draw(st.tuples(*[st.sampled_from([-0.7, 1.0, 3.0])] * 3))
    header.set_sform(affine, 2)
    header["scl_slope"], header["scl_inter"] = draw(
        st.sampled_from([(1, 0), (0, 0), (2.5, -1024), (np.nan, 0), (1, 7)])
    )
    gap = 16 * draw(st.integers(0, 2))
    header["vox_offset"], header["magic"] = header.single_vox_offset + gap, kind.single_magic
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    voxels = rng.integers(0, 256, math.prod(shape) * dtype.itemsize).astype(np.uint8).tobytes()
    content = header.binaryblock + bytes(4 + gap) + voxels
    return (gzip.compress(content), ".nii.gz") if draw(st.booleans()) else (content, ".nii")


@settings(max_examples=150, deadline=None)
@given(file=nifti_files(), planes=st.integers(1, 7), start=st.integers(0, 5))
def test_slabs_are_the_bits_that_reading_gives(tmp_path_factory, file, planes, start) -> None:
    path = tmp_path_factory.getbasetemp() / f"streamed{file[1]}"
    path.write_bytes(file[0])
    scan, whole = open_volume(path), read_volume(path).array
    assert scan.streams
    start = min(start, whole.shape[2] - 1)
    parts = list(scan.slabs(planes, start))
    assert {part.dtype for part in parts} == {whole.dtype}
    assert np.concatenate(parts, axis=2).tobytes() == whole[:, :, start:].tobytes()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_streaming_a_damaged_file_fails_as_reading_does(tmp_path, rng, damage) -> None:
    path = tmp_path / "a.nii.gz"
    write_volume(path, Volume(rng.integers(0, 2**15, (20, 20, 20)).astype(np.int16), AFFINE))
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) // 2]
    else:
        raw[-20] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(FileFormatError) as reading:
        read_volume(path)
    with pytest.raises(FileFormatError) as streaming:
        list(open_volume(path).slabs(3))
    assert str(streaming.value) == str(reading.value)


def n_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_pass_is_its_own_and_closes_the_file(tmp_path, rng) -> None:
    path = tmp_path / "a.nii.gz"
    array = rng.integers(0, 99, (4, 5, 6)).astype(np.int16)
    write_volume(path, Volume(array, AFFINE))
    scan = open_volume(path)
    n_open = n_open_files()
    for _ in range(2):
        slabs = scan.slabs(2)
        np.testing.assert_array_equal(next(slabs), array[:, :, :2])
        assert n_open_files() == n_open + 1
        slabs.close()
        assert n_open_files() == n_open


def test_streaming_holds_a_slab(tmp_path) -> None:
    if not reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    path = tmp_path / "scan.nii.gz"
    write_volume(path, Volume(np.ones((256, 256, 400), np.int16), AFFINE))
    scan = open_volume(path)
    for _ in range(2):
        gc.collect()
        reset_peak()
        before = peak_memory_mb()
        assert sum(int(slab.sum()) for slab in scan.slabs(8)) == 256 * 256 * 400
    assert peak_memory_mb() < before + 10
