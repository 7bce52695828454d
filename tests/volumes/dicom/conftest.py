"""What the tests of DICOM share: a small scan, and SimpleITK's view of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from dicom_writer import volume_datasets
from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import frames_of
from leanseg.volumes.dicom.geometry import Stack, stacked

AFFINE = np.array([[-0.8, 0, 0, 50], [0, -0.7, 0, 60.5], [0, 0, 2.5, -300], [0, 0, 0, 1]])
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def scan_array(shape=(7, 6, 5), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)


@pytest.fixture
def array() -> np.ndarray:
    """A small CT, (i, j, k) HU."""
    return scan_array()


@pytest.fixture
def affine() -> np.ndarray:
    """Its grid: LPS, 0.8 x 0.7 x 2.5 mm."""
    return AFFINE.copy()


def itk_volume(image) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (i, j, k) and affine to RAS+ mm of a SimpleITK image."""
    import SimpleITK as sitk  # noqa: N813

    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, RAS_TO_LPS @ affine


def itk_series(files) -> tuple[np.ndarray, np.ndarray]:
    """SimpleITK's reading of files in slice order, or of a folder."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    is_folder = isinstance(files, Path)
    names = reader.GetGDCMSeriesFileNames(str(files)) if is_folder else [str(f) for f in files]
    reader.SetFileNames(names)
    return itk_volume(reader.Execute())


def axial(spacing=(0.8, 0.9, 2.5), origin=(90.0, 110.0, -40.0)) -> np.ndarray:
    """RAS affine of LPS slices."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = origin
    return affine


def turned(angles, spacing, origin=(5.0, -7.0, 11.0)) -> np.ndarray:
    """RAS affine of slices in any direction, the slice axis along row x column."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", angles).as_matrix() * spacing
    affine[:3, 3] = origin
    return affine


def headers(shape, affine, **options) -> list[Dataset]:
    """Headers of the slices of an empty scan."""
    return volume_datasets(np.zeros(shape, np.int16), affine, **options)


def stack_of(datasets: list[Dataset]) -> Stack:
    """Headers, in any order, as the slices of a scan that label maps are written for."""
    files = [ImageFile(Path(), Path(), dataset, "", True, 0, 0, 0) for dataset in datasets]
    return stacked([frame for file in files for frame in frames_of(file)], "scan")
