"""PNG and DICOM slices written with Pillow and pydicom, laid on scans in files and in DICOM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dicom_writer import volume_datasets, write_series, write_slices
from leanseg.datasets.readers import read_source
from leanseg.datasets.readers.slices import natural_order, paired
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError, FileFormatError, GeometryError
from leanseg.volumes import Volume, read_volume

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.8, 0, 30], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])
SHAPE = (7, 5, 4)


def write_pngs(folder: Path, label, names=None, mode="L") -> Path:
    """Slices (i, j, k) of a label map, k-th as the k-th name."""
    folder.mkdir(parents=True)
    for k in range(label.shape[2]):
        name = f"mask_{k}.png" if names is None else names[k]
        pixels = label[:, :, k].T
        if mode == "1":
            picture = Image.fromarray((pixels > 0).astype(np.uint8) * 255).convert("1")
        elif mode == "P":
            picture = Image.fromarray(pixels.astype(np.uint8), "P")
            picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        elif mode == "RGB":
            picture = Image.fromarray(np.stack([pixels] * 3, axis=-1).astype(np.uint8))
        elif mode == "I;16":
            picture = Image.fromarray(pixels.astype(np.uint16))
        else:
            picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(folder / name)
    return folder


@pytest.fixture
def label(rng) -> np.ndarray:
    return rng.integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def scan() -> Volume:
    return Volume(np.zeros(SHAPE, np.int16), AFFINE, Path("scan.nii.gz"))


def read(folder, scan, **options) -> Volume:
    return read_source(VolumeSource(folder, "slices", options), scan)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "I;16"])
def test_grey_values_come_back(tmp_path, label, scan, mode):
    volume = read(write_pngs(tmp_path / "masks", label, mode=mode), scan)
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array, label)
    np.testing.assert_array_equal(volume.affine, AFFINE)


def test_one_bit_is_0_and_255(tmp_path, label, scan):
    volume = read(write_pngs(tmp_path / "masks", label, mode="1"), scan)
    np.testing.assert_array_equal(volume.array, np.where(label > 0, 255, 0))


def test_sixteen_bits(tmp_path, label, scan):
    volume = read(write_pngs(tmp_path / "masks", label * np.uint16(300), mode="I;16"), scan)
    assert volume.array.dtype == np.uint16
    np.testing.assert_array_equal(volume.array, label * np.uint16(300))


def test_ranges_of_grey_values(tmp_path, rng, scan):
    grey = rng.integers(0, 256, SHAPE).astype(np.uint8)
    volume = read(write_pngs(tmp_path / "m", grey), scan, values={"1": [55, 70], "4": [240, 255]})
    expected = np.zeros(SHAPE)
    expected[(grey >= 55) & (grey <= 70)] = 1
    expected[grey >= 240] = 4
    np.testing.assert_array_equal(volume.array, expected)


def test_ranges_that_overlap(tmp_path, scan):
    folder = write_pngs(tmp_path / "m", np.full(SHAPE, 200))
    with pytest.raises(DatasetError, match="70 to 90 belong to two labels"):
        read(folder, scan, values={"1": [55, 70], "2": [70, 90]})


def test_names_in_natural_order(tmp_path, scan, rng):
    label = rng.integers(0, 3, (7, 5, 12)).astype(np.uint8)
    scan = replace(scan, array=np.zeros((7, 5, 12), np.int16))
    folder = write_pngs(tmp_path / "masks", label)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "._mask_0.png").write_bytes(b"x")
    np.testing.assert_array_equal(read(folder, scan).array, label)


def dicom_scan(folder: Path, rng, reverse=False, pattern="IM{:04d}"):
    """A CT series; `reverse` names the files from the highest slice down."""
    array = rng.integers(-500, 500, SHAPE).astype(np.int16)
    datasets = volume_datasets(array, AFFINE)
    write_slices(folder, datasets[::-1] if reverse else datasets, pattern=pattern)
    scan = read_volume(folder)
    np.testing.assert_array_equal(scan.array, array)
    return scan


@pytest.mark.parametrize("reverse", [False, True])
def test_in_the_order_of_the_scan_s_files(tmp_path, rng, label, reverse):
    """The n-th picture belongs to the n-th DICOM file, wherever that lies."""
    scan = dicom_scan(tmp_path / "dicom", rng, reverse)
    written = label[:, :, ::-1] if reverse else label
    volume = read(write_pngs(tmp_path / "masks", written), scan)
    np.testing.assert_array_equal(volume.array, label)
    np.testing.assert_array_equal(volume.affine, scan.affine)


def test_same_names_beat_the_order(tmp_path, rng, label):
    scan = dicom_scan(tmp_path / "dicom", rng, pattern="b{}.dcm")
    names = ["b0.png", "b1.png", "b2.png", "b3.png"]
    order = [2, 0, 3, 1]
    folder = write_pngs(tmp_path / "masks", label[:, :, order], [names[k] for k in order])
    np.testing.assert_array_equal(read(folder, scan).array, label)


def test_dicom_masks(tmp_path, rng, label):
    scan = dicom_scan(tmp_path / "PATIENT_DICOM", rng, reverse=True, pattern="image_{}")
    masks = volume_datasets((label * 127).astype(np.int16), AFFINE, intercept=0)
    write_slices(tmp_path / "liver", masks[::-1], pattern="image_{}")
    np.testing.assert_array_equal(read(tmp_path / "liver", scan).array, label * 127)


def test_slices_of_a_tilted_scan(tmp_path, rng, label):
    """Reading resamples a tilted scan to an upright grid, on which its files are no slices."""
    tilted = AFFINE.copy()
    tilted[1, 2] = -0.5
    array = rng.integers(-500, 500, SHAPE).astype(np.int16)
    write_series(tmp_path / "dicom", array, tilted)
    folder = write_pngs(tmp_path / "masks", label)
    with pytest.raises(GeometryError, match=r"gantry is tilted by 11\.3 degrees"):
        read(folder, Volume(array, AFFINE, tmp_path / "dicom"))


def test_bad_input(tmp_path, label, scan):
    folder = write_pngs(tmp_path / "masks", label)
    with pytest.raises(DatasetError, match="give the scan"):
        read(folder, None)
    with pytest.raises(DatasetError, match="expected a folder"):
        read(tmp_path / "none", scan)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no slices"):
        read(tmp_path / "empty", scan)
    with pytest.raises(GeometryError, match=r"has 4 slices, but its scan .* has 6"):
        read(folder, replace(scan, array=np.zeros((7, 5, 6))))
    with pytest.raises(GeometryError, match=r"7 x 5 pixels, but its scan .* has 5 x 7"):
        read(folder, replace(scan, array=np.zeros((5, 7, 4))))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nrubbish", b"text"])
def test_damaged_pictures(tmp_path, label, scan, content):
    folder = write_pngs(tmp_path / "masks", label)
    (folder / "mask_2.png").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"mask_2.png: cannot be read as a slice"):
        read(folder, scan)


def test_a_picture_of_gigabytes_is_not_unpacked(tmp_path, label, scan):
    """A header can promise any size, and little content can unpack to much."""
    folder = write_pngs(tmp_path / "masks", label)
    Image.new("L", (14_000, 14_000)).save(folder / "mask_0.png")
    with pytest.raises(FileFormatError, match=r"mask_0.png: cannot be read as a slice"):
        read(folder, scan)


def test_a_damaged_dicom_mask_names_nobody(tmp_path, rng, label, scan):
    files = write_series(tmp_path / "mask", label.astype(np.int16), AFFINE, intercept=0)
    files[1].write_bytes(files[1].read_bytes()[:900])
    with pytest.raises(FileFormatError, match="cannot be read as a slice") as caught:
        read(tmp_path / "mask", scan)
    assert "Doe" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_coloured_pictures(tmp_path, label, scan):
    folder = write_pngs(tmp_path / "masks", label)
    Image.new("RGB", SHAPE[:2], (255, 0, 0)).save(folder / "mask_1.png")
    with pytest.raises(FileFormatError, match=r"mask_1.png: is coloured"):
        read(folder, scan)


@given(st.permutations(range(8)), st.booleans())
def test_pairing_is_a_permutation(order, same_names):
    scans = [Path(f"scan/{'s' if same_names else 'i'}{n}.dcm") for n in order]
    masks = sorted((Path(f"mask/s{n}.png") for n in range(8)), key=natural_order)
    assert [int(mask.stem[1:]) for mask in paired(masks, scans)] == list(order)
