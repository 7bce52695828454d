"""What headers promise against what reading gives."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from dicom_writer import write_series
from leanseg.errors import FileFormatError, GeometryError
from leanseg.volumes import read_volume
from leanseg.volumes.promise import promised

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, -3.0, 30], [0, 0, 0, 1]])


def assert_kept(path, **options) -> None:
    promise, volume = promised(path, **options), read_volume(path, **options)
    assert promise.volume.array.shape == volume.array.shape
    assert promise.volume.array.dtype == volume.array.dtype
    assert promise.n_bytes == volume.array.nbytes
    np.testing.assert_array_equal(promise.volume.affine, volume.affine)
    assert promise.volume.orientation == volume.orientation


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
    assert promised(tmp_path / "ct").volume.array.dtype == np.float32


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


def test_a_scan_larger_than_memory_takes_none(tmp_path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((30000, 30000, 30000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "scan.nii").write_bytes(header.binaryblock)
    assert promised(tmp_path / "scan.nii").n_bytes == 2 * 30000**3


def test_what_is_no_scan(tmp_path) -> None:
    with pytest.raises(FileFormatError, match="there is no such file"):
        promised(tmp_path / "none.nii.gz")
    (tmp_path / "text.mha").write_text("nothing")
    with pytest.raises(FileFormatError, match="not a MetaImage or NRRD file"):
        promised(tmp_path / "text.mha")
    nib.save(nib.Nifti1Image(np.ones((3, 4), np.int16), AFFINE), tmp_path / "flat.nii.gz")
    with pytest.raises(GeometryError, match="3-D"):
        promised(tmp_path / "flat.nii.gz")
