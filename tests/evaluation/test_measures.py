"""Measures of labels, against SimpleITK, scikit-image and numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.measure import find_contours

from leanseg.errors import GeometryError
from leanseg.evaluation.measures import measure
from leanseg.volumes import Volume, reorient

AFFINE = np.array([[-0.7, 0, 0, 40], [0, -0.9, 0, 30], [0, 0, 2.5, -60], [0, 0, 0, 1.0]])
LABELS = {"liver": 1, "both": (1, 2), "absent": 7}


@pytest.fixture
def blobs(rng) -> tuple[Volume, Volume]:
    """A label map of two labels in pieces, and a scan."""
    noise = ndimage.gaussian_filter(rng.normal(size=(40, 36, 14)), 2)
    labels = np.digitize(noise, np.quantile(noise, (0.8, 0.93))).astype(np.uint8)
    grey = rng.normal(50, 200, labels.shape).astype(np.int16)
    return Volume(labels, AFFINE), Volume(grey, AFFINE)


def test_simpleitk_measures_the_same(blobs):
    mask, scan = blobs
    liver, both, absent = measure(mask, scan, LABELS)
    ours = {"liver": mask.array == 1, "both": mask.array > 0}
    for one in (liver, both):
        inside = SimpleITK.GetImageFromArray(ours[one.label].astype(np.uint8).T)
        image = SimpleITK.GetImageFromArray(scan.array.T)
        for each in (inside, image):
            each.SetSpacing((0.7, 0.9, 2.5))
        intensity = SimpleITK.LabelStatisticsImageFilter()
        intensity.Execute(image, inside)
        shape = SimpleITK.LabelShapeStatisticsImageFilter()
        shape.Execute(inside)
        pieces = SimpleITK.ConnectedComponentImageFilter()
        pieces.FullyConnectedOn()
        pieces.Execute(inside)
        assert one.n_voxels == intensity.GetCount(1)
        assert one.mean == pytest.approx(intensity.GetMean(1))
        assert one.sd == pytest.approx(intensity.GetSigma(1))
        assert one.volume_ml == pytest.approx(shape.GetPhysicalSize(1) / 1000)
        size = np.multiply(shape.GetBoundingBox(1)[3:], (0.7, 0.9, 2.5))
        assert one.extent_mm == pytest.approx(tuple(size))
        assert one.n_components == pieces.GetObjectCount() > 1
    assert (absent.n_voxels, absent.volume_ml, absent.n_components) == (0, 0, 0)
    assert absent.mean is absent.sd is absent.extent_mm is absent.axial_diameter_mm is None


def test_the_diameter_is_that_of_the_outline(blobs):
    mask, scan = blobs
    (liver,) = measure(mask, scan, {"liver": 1})
    longest = 0.0
    for section in np.moveaxis(np.pad(mask.array == 1, 1), 2, 0):
        contours = find_contours(section.astype(float), 0.5)
        if contours:
            longest = max(longest, pdist(np.concatenate(contours) * (0.7, 0.9)).max())
    assert liver.axial_diameter_mm == pytest.approx(longest)


def test_the_order_of_voxels_changes_nothing(blobs):
    mask, scan = blobs
    expected = measure(mask, scan, LABELS)
    for turned in (reorient(mask, "SAR"), reorient(mask, "PSL")):
        for one, other in zip(measure(turned, scan, LABELS), expected, strict=True):
            assert (one.n_voxels, one.n_components) == (other.n_voxels, other.n_components)
            assert one.extent_mm == pytest.approx(other.extent_mm)
            assert one.axial_diameter_mm == pytest.approx(other.axial_diameter_mm)
            assert one.mean == pytest.approx(other.mean)


def test_a_turned_voxel_by_hand():
    """2 x 2 x 2 mm, turned by 45 degrees about z: the box around it is sqrt 8 mm wide."""
    c = 2 * np.sqrt(0.5)
    affine = np.array([[c, -c, 0, 3], [c, c, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 1
    (one,) = measure(Volume(labels, affine), Volume(labels * 40.0, affine), {"a": 1})
    assert one.extent_mm == pytest.approx((np.sqrt(8), np.sqrt(8), 2))
    assert one.axial_diameter_mm == pytest.approx(2)
    assert (one.mean, one.sd, one.volume_ml) == (40, None, pytest.approx(0.008))


def test_another_grid_and_several_channels_are_refused(blobs):
    mask, scan = blobs
    moved = Volume(scan.array, AFFINE + np.eye(4)[:, ::-1])
    with pytest.raises(GeometryError, match="different grids"):
        measure(mask, moved, LABELS)
    with pytest.raises(GeometryError, match="2 channels"):
        measure(mask, Volume(np.stack([scan.array] * 2, -1), AFFINE), LABELS)
