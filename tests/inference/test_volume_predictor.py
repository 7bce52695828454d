"""3-D prediction: what goes in is trilinear, what comes back lies in the scan's own grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from leanseg.errors import DatasetError
from leanseg.inference.restore import restore
from leanseg.inference.volume_predictor import VolumePredictor
from leanseg.preprocessing import LinearScaling, NoWindow, Plan
from leanseg.preprocessing.region_input import region_input, scan_channels
from leanseg.volumes import Box, Volume, resize_array

LAI_48 = ["LAI", "RAS", "SPL", "IAR", "PSR"]


def plan(shape, labels=("organ",), **options) -> Plan:
    return Plan(
        labels=labels,
        orientation="LAI",
        window=NoWindow(),
        scaling="linear",
        linear_scaling=LinearScaling(divide_by=1024, add=1),
        volume_shape=shape,
        **options,
    )


def stored_as(array: np.ndarray, codes: str) -> Volume:
    """A volume in LAI order with 1 x 2 x 3 mm, stored in another orientation."""
    affine = np.diag([-1.0, 2, -3, 1])
    affine[:3, 3] = (5, 6, 7)
    image = nib.Nifti1Image(array, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    return Volume(np.asarray(turned.dataobj), turned.affine)


def test_the_input_is_trilinear_with_half_pixel_centres(rng):
    array = rng.integers(-1000, 1000, (19, 31, 12)).astype(np.int16)
    scheme = plan((24, 16, 20))
    box = Box((2, 3, 1), (18, 30, 12))
    channels = scan_channels(stored_as(array, "LAI"), scheme)
    found = region_input(channels, scheme, box)
    cut = torch.from_numpy(array[box.slices].astype(np.float32) / 1024 + 1)[None, None]
    expected = torch.nn.functional.interpolate(
        cut, size=(24, 16, 20), mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n_outputs", [1, 5])
@pytest.mark.parametrize(
    "shape", [(13, 20, 30), (40, 33, 9), (16, 18, 14), (1, 1, 1), (40, 33, 50)]
)
def test_classes_are_those_of_the_whole_resized_map(rng, shape, n_outputs, threads):
    logits = torch.from_numpy(rng.normal(size=(1, n_outputs, 16, 18, 14)).astype(np.float32)) * 3
    probabilities = (logits.sigmoid() if n_outputs == 1 else logits.softmax(1))[0].numpy()
    # The way that holds every class's map in the scan's resolution.
    full = resize_array(probabilities, shape, axes=(1, 2, 3))
    if min(np.array(shape) / (16, 18, 14)) >= 1:
        trilinear = torch.nn.functional.interpolate(
            torch.from_numpy(probabilities)[None], size=shape, mode="trilinear"
        )
        np.testing.assert_allclose(full, trilinear[0].numpy(), atol=1e-5)
    found = np.zeros(shape, np.uint8, order="F")
    seen = []
    restore(probabilities, found, 4, threads, lambda *numbers: seen.append(numbers))
    assert seen[-1] == (shape[2], shape[2])
    assert seen == sorted(seen)
    if n_outputs == 1:
        clear, expected = np.abs(full[0] - 0.5) > 1e-5, full[0] > 0.5
    else:
        order = np.sort(full, axis=0)
        clear, expected = order[-1] - order[-2] > 1e-5, full.argmax(axis=0)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("codes", LAI_48)
def test_the_result_lies_in_the_scans_own_grid(rng, known_engine, codes):
    array = rng.integers(-900, 900, (14, 11, 9)).astype(np.int16)
    # Where nothing is resized the decision is exact: above 0 HU means above 1.
    engine = known_engine(lambda batch: (batch > 1.0).astype(np.float32))
    scan = stored_as(array, codes)
    found = VolumePredictor(engine, plan((14, 11, 9))).predict(scan)
    np.testing.assert_array_equal(found.labels.array, scan.array > 0)
    np.testing.assert_array_equal(found.labels.affine, scan.affine)


def test_a_plan_of_slices_is_refused(known_engine):
    with pytest.raises(DatasetError, match="volume_shape"):
        VolumePredictor(known_engine(), Plan(labels=("organ",)))
