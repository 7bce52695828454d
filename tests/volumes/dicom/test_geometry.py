"""Gantry tilt: slices sheared against their normal, made upright."""

from __future__ import annotations

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from dicom_writer import volume_datasets, write_series, write_slices
from leanseg.volumes import read_volume
from leanseg.volumes.dicom import find_series
from leanseg.volumes.dicom.geometry import upright, upright_grid

from .conftest import AFFINE, scan_array


def tilted_affine(degrees, spacing=(1.0, 1.0, 3.0), turn=None, toward=1):
    """LPS axial slices whose gantry is tilted: the table moves along z, slices lean."""
    angle = np.radians(degrees)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    # In world space: rows lean, positions go straight along the table.
    lean = Rotation.from_euler("x", angle).as_matrix()
    affine[:3, toward] = lean @ affine[:3, toward]
    affine[:3, 3] = 30, 40, -200
    if turn is not None:
        affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def resampled(voxels, affine, outside):
    """Slices (slice, row, column) on the upright grid, in two parts, and its affine."""
    shape = voxels.shape[::-1]
    parts = [
        upright(part, first, shape, affine, outside)
        for part, first in ((voxels[:1], 0), (voxels[1:], 1))
    ]
    return np.concatenate(parts), upright_grid(shape, affine)[1]


def test_a_shift_by_whole_pixels_by_hand():
    # Each slice lies one column to the right of the one before.
    voxels = np.arange(1, 19, dtype=np.int16).reshape(3, 2, 3)
    affine = np.diag([2.0, 1.0, 4.0, 1.0])
    affine[0, 2] = 2.0
    got, straight = resampled(voxels, affine, -1024)
    expected = [
        [[1, 2, 3, -1024, -1024], [4, 5, 6, -1024, -1024]],
        [[-1024, 7, 8, 9, -1024], [-1024, 10, 11, 12, -1024]],
        [[-1024, -1024, 13, 14, 15], [-1024, -1024, 16, 17, 18]],
    ]
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(straight, np.diag([2.0, 1.0, 4.0, 1.0]))


def test_half_a_pixel_backwards_by_hand():
    # Each slice lies half a row above the one before: interpolated, and the grid starts earlier.
    voxels = np.array([[[10], [20]], [[30], [50]]], dtype=np.int16)
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    affine[1, 2] = -1.0
    got, straight = resampled(voxels, affine, 0)
    np.testing.assert_array_equal(got, [[[0], [10], [20]], [[15], [40], [25]]])
    assert straight[1, 3] == -2.0
    np.testing.assert_array_equal(straight[:3, :3], np.diag([1.0, 2.0, 5.0]))


def test_upright_grids_need_nothing():
    voxels = scan_array().T
    got, straight = resampled(voxels, AFFINE, 0)
    np.testing.assert_array_equal(got, voxels)
    np.testing.assert_array_equal(straight, AFFINE)


@pytest.mark.parametrize("degrees", [-25.0, 8.0, 15.0])
@pytest.mark.parametrize("turned", [False, True])
def test_every_voxel_is_what_lies_there_in_the_world(tmp_path, degrees, turned):
    turn = Rotation.from_euler("xyz", (20, -70, 130), degrees=True).as_matrix()
    affine = tilted_affine(degrees, (0.9, 1.1, 3.0), turn if turned else None)
    array = scan_array((12, 14, 8))
    write_series(tmp_path / "scan", array, affine)
    volume = read_volume(tmp_path / "scan")
    steps = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    np.testing.assert_allclose(steps.T @ steps, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(volume.spacing_mm[:2], (0.9, 1.1), atol=1e-6)
    assert abs(volume.spacing_mm[2] - 3.0 * np.cos(np.radians(degrees))) < 1e-6
    # scipy finds each upright voxel in the sheared stack: linear within the slice.
    index = np.indices(volume.shape).reshape(3, -1)
    to_stack = np.linalg.solve(affine, volume.affine)
    places = to_stack[:3, :3] @ index + to_stack[:3, 3:]
    np.testing.assert_allclose(places[2], np.rint(places[2]), atol=1e-5)
    places[2] = np.rint(places[2])
    expected = map_coordinates(
        array.astype(float), places, order=1, mode="grid-constant", cval=-1024
    )
    np.testing.assert_allclose(volume.array.ravel(), expected, atol=0.51)
    assert volume.array.dtype == np.int16
    # Nothing is cut off: all the stack's corners lie within the grid.
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(array.shape) - 1)[:, None]
    to_grid = np.linalg.solve(volume.affine, affine)
    found = to_grid[:3, :3] @ corners + to_grid[:3, 3:]
    assert found.min() > -1e-5
    assert (found <= (np.array(volume.shape) - 1 + 1e-5)[:, None]).all()


def test_tilt_is_told_and_the_series_says_the_grid_that_is_read(tmp_path):
    write_series(tmp_path / "scan", scan_array((12, 14, 8)), tilted_affine(12.0))
    (series,) = find_series(tmp_path / "scan").series
    assert series.tilt_degrees == pytest.approx(12)
    assert series.notes == ("gantry tilt of 12.0 degrees, resampled to an upright grid",)
    volume = read_volume(tmp_path / "scan")
    assert series.shape == volume.shape
    np.testing.assert_array_equal(series.affine, volume.affine)
    assert series.spacing_mm == volume.spacing_mm


def test_outside_is_the_lowest_value_in_mr(tmp_path):
    array = scan_array((12, 14, 8)) + 1500
    write_series(tmp_path / "scan", array, tilted_affine(20.0), modality="MR")
    volume = read_volume(tmp_path / "scan")
    assert volume.array.min() == array.min()
    assert volume.shape[1] > 14


def test_a_drift_below_half_a_pixel_is_kept_in_the_affine(tmp_path):
    affine = AFFINE.copy()
    affine[0, 2] = 0.02
    array = scan_array()
    write_series(tmp_path / "scan", array, affine)
    volume = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)


def test_tilt_and_a_missing_slice(tmp_path):
    i, j, k = np.indices((20, 20, 9))
    array = (i * 5 + j * 3 + k * 20).astype(np.int16)
    affine = tilted_affine(10.0)
    datasets = volume_datasets(array, affine)
    write_slices(tmp_path / "whole", datasets)
    write_slices(tmp_path / "gap", datasets[:4] + datasets[5:])
    whole = read_volume(tmp_path / "whole")
    filled = read_volume(tmp_path / "gap", fill_missing=True)
    np.testing.assert_allclose(filled.affine, whole.affine, atol=1e-9)
    np.testing.assert_allclose(filled.array, whole.array, atol=1)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize("degrees", [15.0, 20.0])
def test_dcm2niix_gives_the_same_volume(tmp_path, degrees):
    # Positive tilt only: for negative ones this program moves the slices apart along the table.
    affine = tilted_affine(degrees, (1.0, 1.0, 2.0))
    array = gaussian_filter(scan_array((48, 56, 24)).astype(float), 2).round().astype(np.int16)
    # Its margin is the lowest value there is, ours is air: make them the same.
    array[:, :2] = array[:, -2:] = -1024
    datasets = volume_datasets(array, affine)
    for dataset in datasets:
        dataset.GantryDetectorTilt = str(degrees)
        dataset.Manufacturer, dataset.PatientPosition = "SIEMENS", "HFS"
    write_slices(tmp_path / "scan", datasets)
    command = ["dcm2niix", "-z", "n", "-f", "out", "-o", str(tmp_path), str(tmp_path / "scan")]
    subprocess.run(command, check=True, capture_output=True)
    found = list(tmp_path.glob("out*Tilt*.nii"))
    if not found:
        pytest.skip("this version of dcm2niix does not correct tilt")
    theirs = nib.load(found[0])
    ours = read_volume(tmp_path / "scan")
    # It stores rows upwards.
    voxels = np.asarray(theirs.dataobj)[:, ::-1]
    np.testing.assert_allclose(ours.array, voxels, atol=1)
    flipped = theirs.affine @ np.diag([1, -1, 1, 1])
    flipped[:3, 3] += theirs.affine[:3, 1] * (voxels.shape[1] - 1)
    np.testing.assert_allclose(ours.affine, flipped, atol=1e-3)


def test_the_grid_is_known_without_voxels():
    affine = np.diag([2.0, 1.0, 4.0, 1.0])
    affine[1, 2] = -0.75
    shape, straight = upright_grid((5, 6, 3), affine)
    assert shape == (5, 8, 3)
    assert straight[1, 3] == -2.0
