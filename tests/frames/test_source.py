"""Scans in frames against nibabel, PyTorch and SimpleITK; streamed and cached, the same bits."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from leanseg.errors import DatasetError, GeometryError
from leanseg.frames import CachedSource, Place, ScanSource, ScanView
from leanseg.frames.view import may_stream
from leanseg.plan import HounsfieldWindow, LinearScaling, Plan, QuantileWindow
from leanseg.volumes import Box, Volume, open_volume, write_volume
from plans import patches, slices, whole

LPS = np.diag([-0.8, -0.8, 2.5, 1.0])
CODES = ("LPS", "RAS", "LAS", "SRA", "PIR", "AIL", "RIP")


as_is = slices


def source(volume, plan: Plan, indices=None) -> ScanSource:
    """Values of 0 to 1 are left as they are."""
    view = ScanView(volume, plan.final.frame.orientation, plan.channels, indices)
    return ScanSource(view, plan.final)


def unit_volume(rng, shape: tuple[int, ...], affine: np.ndarray = LPS) -> Volume:
    array = rng.random(shape, dtype=np.float32)
    array.flat[:2] = 0, 1
    return Volume(np.asfortranarray(array), affine)


def stored_as(volume: Volume, codes: str) -> Volume:
    """The same scan stored in another orientation, by nibabel."""
    image = nib.Nifti1Image(volume.array, volume.affine)
    wanted = axcodes2ornt(codes)
    moved = image.as_reoriented(ornt_transform(io_orientation(volume.affine), wanted))
    return Volume(np.asfortranarray(np.asanyarray(moved.dataobj)), moved.affine)


def test_slices_without_resizing_are_the_scan(rng) -> None:
    volume = unit_volume(rng, (16, 12, 5))
    seen = source(volume, as_is((16, 12)))
    assert seen.shape == seen.region.shape == (16, 12, 5)
    found = seen.planes(0, 5)
    assert found.shape == (5, 1, 16, 12)
    np.testing.assert_array_equal(found[:, 0], volume.array.transpose(2, 0, 1))


@pytest.mark.parametrize("codes", CODES)
def test_orientation_by_nibabel(rng, codes: str) -> None:
    """Element [s, row, column] of the network's input is the voxel that nibabel puts there."""
    volume = unit_volume(rng, (16, 12, 9))
    found = source(volume, as_is((12, 12), orientation=codes))
    expected = stored_as(volume, codes).array
    assert found.region.shape == expected.shape
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(expected.transpose(2, 0, 1)[:, None].copy()),
        size=(12, 12),
        mode="bilinear",
        antialias=True,
    ).numpy()
    np.testing.assert_allclose(found.planes(0, found.shape[2]), resized, atol=1e-5)


@pytest.mark.parametrize("codes", CODES)
def test_a_scan_stored_otherwise_gives_the_same_bits(rng, codes: str) -> None:
    volume = unit_volume(rng, (30, 26, 9))
    plan = slices((24, 40), scaling="zscore")
    expected = source(volume, plan)
    found = source(stored_as(volume, codes), plan)
    assert found.transforms == expected.transforms
    np.testing.assert_array_equal(found.planes(0, 9), expected.planes(0, 9))


@pytest.mark.parametrize("shape", [(48, 40), (20, 18), (24, 64), (31, 33)])
def test_resizing_by_pytorch(rng, shape: tuple[int, int]) -> None:
    volume = unit_volume(rng, (40, 36, 6))
    found = source(volume, as_is(shape)).planes(0, 6)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(volume.array.transpose(2, 0, 1)[:, None].copy()),
        size=shape,
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_enlarging_by_simpleitk(rng) -> None:
    """Half-pixel centres: ITK, told the physical positions of the new centres, agrees inside."""
    volume = unit_volume(rng, (16, 12, 3))
    found = source(volume, as_is((32, 36))).planes(0, 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array[:, :, 1]))
    grid = sitk.Image(36, 32, sitk.sitkFloat32)
    grid.SetSpacing((12 / 36, 16 / 32))
    grid.SetOrigin((0.5 * 12 / 36 - 0.5, 0.5 * 16 / 32 - 0.5))
    expected = sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear))
    np.testing.assert_allclose(found[1, 0, 1:-1, 2:-2], expected[1:-1, 2:-2], atol=1e-5)


def test_reading_in_batches_gives_the_same_bits(rng) -> None:
    seen = source(unit_volume(rng, (37, 41, 11)), as_is((32, 24)))
    every = seen.planes(0, 11)
    for batch in (4, 8):
        parts = [seen.planes(start, min(start + batch, 11)) for start in range(0, 11, batch)]
        np.testing.assert_array_equal(np.concatenate(parts), every)


def test_channels_are_chosen_in_the_plans_order(rng) -> None:
    volume = unit_volume(rng, (8, 8, 3, 4))
    plan = as_is((8, 8), channels=("b", "a"))
    found = source(volume, plan, (2, 0)).planes(0, 3)
    for n, index in enumerate((2, 0)):
        alone = Volume(np.asfortranarray(volume.array[..., index]), LPS)
        np.testing.assert_array_equal(found[:, n], source(alone, as_is((8, 8))).planes(0, 3)[:, 0])


@pytest.mark.parametrize(
    ("shape", "channels", "indices", "message"),
    [
        (
            (8, 8, 3),
            ("a", "b"),
            None,
            r"1 channel\(s\) are given, but the network needs 2 \(a, b\)",
        ),
        ((8, 8, 3, 4), ("a",), None, r"4 channel\(s\) are given, but the network needs 1 \(a\)"),
        ((8, 8, 3, 4), ("a",), (4,), r"has no channel 4, only 4 \(numbered from 0\)"),
        ((8, 8, 3, 4), ("a",), (-1,), r"has no channel -1"),
        ((8, 8, 3), ("a",), (1,), r"has no channel 1, only 1"),
        ((8, 8, 3, 4), ("a", "b"), (1,), r"1 channel\(s\) are given"),
    ],
)
def test_wrong_channels(rng, shape, channels, indices, message: str) -> None:
    volume = Volume(rng.random(shape), LPS, path=Path("scan.nii.gz"))
    with pytest.raises(DatasetError, match=rf"scan\.nii\.gz: {message}"):
        source(volume, as_is((8, 8), channels=channels), indices)


SCHEMES = {
    "slices": slices((24, 40), window=HounsfieldWindow()),
    "levels": slices((24, 40), window=HounsfieldWindow(), levels=256),
    "whole": whole((20, 24, 9), orientation="LAI", scaling=LinearScaling()),
    "spacing": patches((16, 16, 8), spacing_mm=(1.0, 0.7, 1.9), window=HounsfieldWindow()),
}


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PRS", "SAR"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_places_are_read_as_planes_are(rng, codes: str, scheme: str) -> None:
    """Contiguous, interleaved, repeated and past the ends; from a scan and from the cache."""
    array = rng.integers(-500, 500, (30, 26, 13)).astype(np.int16)
    seen = source(stored_as(Volume(np.asfortranarray(array), LPS), codes), SCHEMES[scheme])
    planes = seen.planes(0, seen.shape[2])
    cached = CachedSource(planes, seen.region)
    assert cached.shape == seen.shape
    n_i, n_j, n_k = seen.shape
    padded = np.pad(planes.transpose(1, 2, 3, 0), [(0, 0), (3, 40), (3, 40), (3, 40)])
    places = [
        Place.box((-2, 1, -1), (8, 9, 5)),
        Place.slice(seen.shape, n_k - 1, neighbours=1),
        Place(np.arange(0, n_i, 2), np.array([3, 1]), rng.choice(n_k, 4, replace=False)),
        Place(np.arange(n_i + 2), np.arange(n_j), np.array([n_k, n_k + 1])),
    ]
    for place in places:
        expected = padded[:, place.i + 3][:, :, place.j + 3][..., place.k + 3]
        for each in (seen, cached):
            found = each.read(place)
            assert found.shape == (1, *place.shape)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("codes", ["LPS", "RAI", "ARS", "SPL"])
@pytest.mark.parametrize("scheme", ["slices", "levels", "whole"])
def test_a_streamed_scan_gives_the_same_bits(rng, tmp_path, codes: str, scheme: str) -> None:
    array = rng.integers(-500, 500, (30, 26, 13)).astype(np.int16)
    path = tmp_path / "scan.nii.gz"
    write_volume(path, stored_as(Volume(np.asfortranarray(array), LPS), codes))
    stored, plan = open_volume(path), SCHEMES[scheme]
    assert may_stream(stored, plan) == (codes[2] in "IS")
    if not may_stream(stored, plan):
        return
    region = Box((1, 2, 3), (29, 20, 11))
    for box in (None, region):
        view = ScanView(stored, plan.final.frame.orientation, streams=True)
        streamed = ScanSource(view, plan.final, box)
        held = ScanSource(ScanView(stored.read(), plan.final.frame.orientation), plan.final, box)
        assert streamed.transforms == held.transforms
        n = streamed.shape[2]
        np.testing.assert_array_equal(streamed.planes(0, n), held.planes(0, n))
        np.testing.assert_array_equal(streamed.planes(1, 4), held.planes(1, 4))
        every: list[np.ndarray] = []
        for seen in (streamed, held):
            slabs = sorted(seen.portions(2), key=lambda portion: portion.start)
            every.append(np.concatenate([seen.prepare(slab)[0] for slab in slabs]))
        assert len(every[0]) == streamed.region.shape[2]
        np.testing.assert_array_equal(*every)


def test_what_cannot_be_streamed(rng, tmp_path) -> None:
    def stored(array, name):
        write_volume(tmp_path / name, Volume(np.asfortranarray(array), LPS))
        return open_volume(tmp_path / name)

    array = rng.integers(-500, 500, (20, 20, 6)).astype(np.int16)
    plan = SCHEMES["slices"]
    assert may_stream(stored(array, "scan.nii.gz"), plan)
    assert not may_stream(stored(array, "scan.nii.gz").read(), plan)
    assert not may_stream(stored(array.astype(np.float32), "float.nii.gz"), plan)
    assert not may_stream(stored(array, "scan.mha"), plan)
    for other in (
        slices((24, 40), window=QuantileWindow()),
        slices((24, 40), scaling="zscore"),
        SCHEMES["spacing"],
    ):
        assert not may_stream(stored(array, "scan.nii.gz"), other)


@pytest.mark.parametrize("order", ["C", "F"])
def test_slices_of_one_value_are_told(rng, order: str) -> None:
    array = rng.random((10, 12, 40)).astype(np.float32)
    array[..., 3], array[..., 39], array[5, 5, 39] = 0.25, 0.5, 0.75
    array.flat[0], array.flat[1] = 0, 1
    seen = source(Volume(np.asarray(array, order=order), np.diag([-1, -1, 1, 1])), slices((8, 8)))
    values = {}
    for portion in seen.portions(3):
        batch, found = seen.prepare(portion)
        values |= dict(enumerate(found, start=portion.start))
        np.testing.assert_array_equal(
            batch, seen.planes(portion.start, portion.start + portion.n_slices)
        )
    assert {k: value for k, value in values.items() if value is not None} == {3: (0.25,)}
    assert len(values) == 40


def test_a_spacing_that_would_make_a_huge_volume_is_refused() -> None:
    volume = Volume(np.zeros((512, 512, 800), np.int8), np.diag([-0.8, -0.8, 1.0, 1]))
    plan = patches((64, 64, 64), spacing_mm=(0.2, 0.2, 0.25))
    with pytest.raises(GeometryError, match=r"2048 x 2048 x 3200 voxels .* 54 GB"):
        source(volume, plan)
