"""Real series: against SimpleITK's reader, and against NIfTI files of the same scans."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest

from leanseg.volumes import read_volume, same_grid, unpacked
from leanseg.volumes.dicom import find_series

from .conftest import itk_series

pytestmark = pytest.mark.shared_data


def itk_ordered(files):
    """SimpleITK's reading, in the order that pydicom's positions give."""

    def height(file):
        return float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2])

    return itk_series(sorted(files, key=height))


@pytest.mark.slow
def test_chaos(shared_data):
    folder = shared_data / "abdomen_chaos03"
    path = folder / "chaos_ct_set3_dicom_png.zip" / "DICOM_anon"
    volume = read_volume(path)
    twin = read_volume(folder / "liver_gt.nii.gz")
    assert volume.shape == (512, 512, 78)
    assert same_grid(volume, twin)
    voxels, affine = itk_ordered(unpacked(path).iterdir())
    np.testing.assert_array_equal(volume.array, voxels)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    (series,) = find_series(path).series
    assert (series.thickness_mm, series.spacing_mm[2]) == (3.2, 2.0)
    assert series.rescale == "1 x stored value -1000"
    # The whole zip holds pictures too; only the scan is DICOM.
    np.testing.assert_array_equal(read_volume(path.parent).array, volume.array)


def test_crlm(shared_data):
    path = shared_data / "abdomen_crlm" / "CRLM-CT-1004_dicom.zip"
    volume = read_volume(path)
    voxels, affine = itk_ordered(unpacked(path).iterdir())
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    padded = voxels < -1500
    assert set(np.unique(voxels[padded])) == {-3024}
    assert 0.15 < padded.mean() < 0.25
    assert set(np.unique(volume.array[padded])) == {-1024}
    np.testing.assert_array_equal(volume.array[~padded], voxels[~padded])
    assert find_series(path).series[0].padding == "stored -2000, rescaled -3024"


def test_totalsegmentator(shared_data):
    folder = shared_data / "totalsegmentator_peer"
    path = folder / "example_ct_dicom.zip"
    volume = read_volume(path)
    voxels, affine = itk_ordered(unpacked(path).iterdir())
    np.testing.assert_array_equal(volume.array, voxels)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    (series,) = find_series(path).series
    assert (series.thickness_mm, series.spacing_mm[2]) == (3.0, 2.0)
    assert series.transfer_syntax.startswith("JPEG 2000")
    # Its segmentation is stored LAS: the same corners of the world, another order of voxels.
    twin = nib.load(folder / "example_seg_dicom.nii.gz")
    assert ("".join(nib.aff2axcodes(twin.affine)), volume.orientation) == ("LAS", "LPS")
    ours = np.sort(nib.affines.apply_affine(volume.affine, corners(volume.shape)), axis=0)
    theirs = np.sort(nib.affines.apply_affine(twin.affine, corners(twin.shape)), axis=0)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    # And the labels lie on the anatomy: bone is bright, lung or air is not labelled so.
    labels = np.asarray(twin.dataobj)[:, ::-1]
    assert labels.shape == volume.shape
    medians = [np.median(volume.array[labels == n]) for n in np.unique(labels[labels > 0])]
    assert np.mean([-150 < m < 900 for m in medians]) > 0.9


def corners(shape):
    return np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1)
