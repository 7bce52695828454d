"""MetaImage and NRRD against SimpleITK and against nibabel's idea of the world."""

from __future__ import annotations

import gc
import resource

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from leanseg.errors import FileFormatError, GeometryError, LeansegError
from leanseg.inference.memory import peak_memory_mb, reset_peak
from leanseg.volumes import Volume, read_volume, write_mask, write_volume

SUFFIXES = [".mha", ".mhd", ".nrrd"]
TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN * (0.7, 0.8, 2.5)
AFFINE[:3, 3] = (-101.3, 55.1, 1 / 3)


def array_of(dtype, shape=(3, 4, 5)):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
def test_round_trip_and_world(tmp_path, suffix, dtype):
    array = array_of(dtype)
    path = tmp_path / f"a{suffix}"
    write_volume(path, Volume(array, AFFINE))
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array.T)
    for index in ((0, 0, 0), (2, 0, 1), (1, 3, 4)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((-x, -y, z), nib.affines.apply_affine(AFFINE, index), atol=1e-9)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=0, atol=1e-12)
    assert volume.header is None
    kind = np.float32 if dtype == "f8" else np.dtype(dtype)
    assert volume.array.dtype == kind
    np.testing.assert_array_equal(volume.array, array.astype(kind))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_channels(tmp_path, suffix):
    array = array_of("i2", (3, 4, 5, 2))
    write_volume(tmp_path / f"a{suffix}", Volume(array, AFFINE))
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array, array)


@pytest.mark.parametrize("n_times", [1, 3])
def test_a_fourth_axis_becomes_channels(tmp_path, n_times):
    frames = [sitk.GetImageFromArray(array_of("i2", (5, 4, 3)) + n) for n in range(n_times)]
    series = sitk.JoinSeries(frames)
    series.SetSpacing((0.7, 0.8, 2.5, 1.0))
    series.SetOrigin((1.0, 2.0, 3.0, 0.0))
    sitk.WriteImage(series, str(tmp_path / "a.nrrd"))
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.array.shape == ((3, 4, 5, 3) if n_times == 3 else (3, 4, 5))
    np.testing.assert_allclose(volume.spacing_mm, (0.7, 0.8, 2.5))
    np.testing.assert_allclose(volume.affine[:3, 3], (-1, -2, 3))
    last = volume.array[..., -1] if n_times == 3 else volume.array
    np.testing.assert_array_equal(last, sitk.GetArrayFromImage(frames[-1]).T)


def test_big_endian_metaimage(tmp_path):
    array = array_of("i2")
    lines = [
        *("ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = True"),
        *("DimSize = 3 4 5", "ElementSpacing = 1 2 3", "ElementType = MET_SHORT"),
        "ElementDataFile = LOCAL\n",
    ]
    data = array.astype(">i2").tobytes(order="F")
    (tmp_path / "a.mha").write_bytes("\n".join(lines).encode() + data)
    volume = read_volume(tmp_path / "a.mha")
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.affine, np.diag([-1.0, -2.0, 3.0, 1.0]))


def test_nrrd_in_ras_space(tmp_path):
    array = array_of("u1")
    lines = [
        *("NRRD0004", "type: uint8", "dimension: 3", "space: right-anterior-superior"),
        *("sizes: 3 4 5", "space directions: (2,0,0) (0,3,0) (0,0,4)", "kinds: " + "domain " * 3),
        *("encoding: raw", "space origin: (10,20,30)", "\n"),
    ]
    (tmp_path / "a.nrrd").write_bytes("\n".join(lines).encode() + array.tobytes(order="F"))
    volume = read_volume(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.array, array)
    expected = np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    np.testing.assert_allclose(volume.affine, expected, atol=1e-12)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_masks_are_compressed_labels(tmp_path, suffix):
    mask = np.zeros((40, 40, 40), np.int64)
    mask[3:9, 4, 5] = 300
    write_mask(tmp_path / f"m{suffix}", mask, Volume(np.zeros(mask.shape), AFFINE))
    volume = read_volume(tmp_path / f"m{suffix}")
    assert volume.array.dtype == np.uint16
    np.testing.assert_array_equal(volume.array, mask)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 4000
    # One file, or two for the format of two; no leftovers.
    assert len(list(tmp_path.iterdir())) == (2 if suffix == ".mhd" else 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_from_nifti_and_back(tmp_path, suffix):
    array = array_of("i2")
    affine = AFFINE.astype(np.float32).astype(np.float64)
    nib.Nifti1Image(array, affine).to_filename(tmp_path / "a.nii")
    write_volume(tmp_path / f"b{suffix}", read_volume(tmp_path / "a.nii"))
    write_volume(tmp_path / "c.nii", read_volume(tmp_path / f"b{suffix}"))
    image = nib.load(tmp_path / "c.nii")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("write", [write_volume, write_mask])
def test_cut_short(tmp_path, suffix, write):
    volume = Volume(array_of("u1", (30, 30, 30)), AFFINE)
    path = tmp_path / f"a{suffix}"
    if write is write_mask:
        write_mask(path, volume.array, volume)
    else:
        write_volume(path, volume)
    data = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    data.write_bytes(data.read_bytes()[:-1000])
    with pytest.raises(FileFormatError, match=f"a{suffix}: cannot be read") as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


def test_missing_data_file(tmp_path):
    write_volume(tmp_path / "a.mhd", Volume(array_of("u1"), AFFINE))
    (tmp_path / "a.raw").unlink()
    with pytest.raises(FileFormatError, match="which is missing"):
        read_volume(tmp_path / "a.mhd")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_file(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_text("not an image\n" * 100)
    with pytest.raises(FileFormatError, match="not a MetaImage or NRRD file"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_pictures_are_refused(tmp_path, shape):
    picture = sitk.GetImageFromArray(np.zeros(shape, np.uint8), isVector=len(shape) == 3)
    sitk.WriteImage(picture, str(tmp_path / "a.mha"))
    with pytest.raises(GeometryError, match="expected a 3-D volume"):
        read_volume(tmp_path / "a.mha")


def test_complex_is_refused(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.complex64))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    with pytest.raises(FileFormatError, match="are not grey values"):
        read_volume(tmp_path / "a.nrrd")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n_bytes", [500, 50_000])
def test_a_disk_that_fills_up(tmp_path, suffix, n_bytes):
    """A limit on the size of files stands for the end of the disk."""
    volume = Volume(array_of("u1", (60, 60, 60)), AFFINE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        with pytest.raises(LeansegError, match="the disk may be full"):
            write_volume(tmp_path / f"a{suffix}", volume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_reading_takes_no_second_copy(tmp_path) -> None:
    if not reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    array = np.ones((256, 256, 400), dtype=np.int16)
    write_volume(tmp_path / "scan.mha", Volume(array, np.eye(4)))
    del array
    read_volume(tmp_path / "scan.mha")
    gc.collect()
    reset_peak()
    before = peak_memory_mb()
    volume = read_volume(tmp_path / "scan.mha")
    assert peak_memory_mb() < before + 1.3 * volume.array.nbytes / 1e6
