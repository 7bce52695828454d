"""Scans as network slices against nibabel, PyTorch, SimpleITK and hand-computed ranges."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from leanseg.errors import DatasetError
from leanseg.preprocessing import (
    LabelCentredSlices,
    NoWindow,
    Plan,
    ScanSlices,
    class_lookup,
    class_map,
    resize_classes,
    training_range,
    training_slices,
)
from leanseg.volumes import Volume

LPS = np.diag([-0.8, -0.8, 2.5, 1.0])
CODES = ("LPS", "RAS", "LAS", "SRA", "PIR", "AIL", "RIP")


def as_is(shape: tuple[int, int], **options) -> Plan:
    """A plan whose window and scaling are known by heart: values are 0 to 1 already."""
    return Plan(labels=("organ",), window=NoWindow(), slice_shape=shape, **options)


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
    slices = ScanSlices(volume, as_is((16, 12)))
    assert (slices.n_slices, slices.in_plane_shape) == (5, (16, 12))
    found = slices.read(0, 5)
    assert found.shape == (5, 1, 16, 12)
    np.testing.assert_array_equal(found[:, 0], volume.array.transpose(2, 0, 1))


@pytest.mark.parametrize("codes", CODES)
def test_orientation_by_nibabel(rng, codes: str) -> None:
    """Element [s, row, column] of the network's input is the voxel that nibabel puts there."""
    volume = unit_volume(rng, (16, 12, 9))
    found = ScanSlices(volume, as_is((12, 12), orientation=codes))
    expected = stored_as(volume, codes).array
    assert found.in_plane_shape == expected.shape[:2]
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(expected.transpose(2, 0, 1)[:, None].copy()),
        size=(12, 12),
        mode="bilinear",
        antialias=True,
    ).numpy()
    np.testing.assert_allclose(found.read(0, found.n_slices), resized, atol=1e-5)


@pytest.mark.parametrize("codes", CODES)
def test_a_scan_stored_otherwise_gives_the_same_bits(rng, codes: str) -> None:
    volume = unit_volume(rng, (30, 26, 9))
    plan = Plan(labels=("organ",), window=NoWindow(), scaling="zscore", slice_shape=(24, 40))
    expected = ScanSlices(volume, plan)
    found = ScanSlices(stored_as(volume, codes), plan)
    assert found.transforms == expected.transforms
    np.testing.assert_array_equal(found.read(0, 9), expected.read(0, 9))


@pytest.mark.parametrize("shape", [(48, 40), (20, 18), (24, 64), (31, 33)])
def test_resizing_by_pytorch(rng, shape: tuple[int, int]) -> None:
    volume = unit_volume(rng, (40, 36, 6))
    found = ScanSlices(volume, as_is(shape)).read(0, 6)
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
    found = ScanSlices(volume, as_is((32, 36))).read(0, 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array[:, :, 1]))
    grid = sitk.Image(36, 32, sitk.sitkFloat32)
    grid.SetSpacing((12 / 36, 16 / 32))
    grid.SetOrigin((0.5 * 12 / 36 - 0.5, 0.5 * 16 / 32 - 0.5))
    expected = sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear))
    np.testing.assert_allclose(found[1, 0, 1:-1, 2:-2], expected[1:-1, 2:-2], atol=1e-5)


def test_reading_in_batches_gives_the_same_bits(rng) -> None:
    slices = ScanSlices(unit_volume(rng, (37, 41, 11)), as_is((32, 24)))
    whole = slices.read(0, 11)
    for batch in (4, 8):
        parts = [slices.read(start, start + batch) for start in range(0, 11, batch)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_channels_are_chosen_in_the_plans_order(rng) -> None:
    volume = unit_volume(rng, (8, 8, 3, 4))
    plan = as_is((8, 8), channels=("b", "a"))
    found = ScanSlices(volume, plan, (2, 0)).read(0, 3)
    for n, index in enumerate((2, 0)):
        alone = Volume(np.asfortranarray(volume.array[..., index]), LPS)
        np.testing.assert_array_equal(
            found[:, n], ScanSlices(alone, as_is((8, 8))).read(0, 3)[:, 0]
        )


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
        ScanSlices(volume, as_is((8, 8), channels=channels), indices)


def test_labels_are_merged_and_others_are_background() -> None:
    values = np.array([0, 1, 2, 3, 7, 9, 255], dtype=np.uint8).reshape(7, 1, 1)
    plan = Plan(labels=("tumour", "organ"))
    found = class_map(Volume(values, LPS), plan, {"organ": [1, 2], "tumour": [7]})
    assert found.dtype == np.uint8
    assert found.shape == (1, 7, 1)
    assert found.ravel().tolist() == [0, 2, 2, 0, 1, 0, 0]


def test_many_labels_need_uint16() -> None:
    names = tuple(f"label {n}" for n in range(300))
    values = {name: [n + 1] for n, name in enumerate(names)}
    table = class_lookup(names, values)
    assert table.dtype == np.uint16
    assert table.tolist() == list(range(301))
    label = Volume(np.array([0, 256, 300, 60000], dtype=np.uint16).reshape(4, 1, 1), LPS)
    assert class_map(label, Plan(labels=names), values).ravel().tolist() == [0, 256, 300, 0]


@pytest.mark.parametrize("codes", CODES)
def test_the_class_map_is_oriented_as_the_slices(rng, codes: str) -> None:
    array = rng.integers(0, 3, size=(7, 6, 5), dtype=np.uint8)
    plan = Plan(labels=("a", "b"))
    values = {"a": [1], "b": [2]}
    expected = class_map(Volume(array, LPS), plan, values)
    np.testing.assert_array_equal(expected, array.transpose(2, 0, 1))
    np.testing.assert_array_equal(
        class_map(stored_as(Volume(array, LPS), codes), plan, values), expected
    )


@pytest.mark.parametrize("shape", [(16, 16), (5, 9), (40, 23)])
def test_classes_are_resized_to_the_nearest(rng, shape: tuple[int, int]) -> None:
    classes = rng.integers(0, 4, size=(3, 20, 23), dtype=np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(classes)[:, None], size=shape, mode="nearest-exact"
    )[:, 0]
    found = resize_classes(classes, shape)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected.numpy())


def labelled(n_slices: int, *where: int) -> np.ndarray:
    classes = np.zeros((n_slices, 4, 4), dtype=np.uint8)
    classes[list(where), 1, 2] = 1
    return classes


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (labelled(100, 40, 60), (24, 76)),  # [zmin - 16, zmax + 16), open above
        (labelled(100, 3, 60), (0, 76)),  # floored at 0
        (labelled(100, 40, 95), (24, 100)),  # and at the end
        (labelled(20, 0, 19), (0, 20)),
        (labelled(100), (0, 100)),  # no label: everything
    ],
)
def test_the_range_of_paper_000(classes: np.ndarray, expected: tuple[int, int]) -> None:
    assert training_range(classes, LabelCentredSlices(margin=16)) == expected


def test_the_upper_end_is_open_even_without_a_margin() -> None:
    rule = LabelCentredSlices(margin=0)
    assert training_range(labelled(10, 3, 6), rule) == (3, 6)
    assert training_range(labelled(10, 3), rule) == (3, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data(), st.integers(0, 20))
def test_the_range_holds_slices(n_slices: int, data, margin: int) -> None:
    where = data.draw(st.sets(st.integers(0, n_slices - 1), max_size=4))
    classes = labelled(n_slices, *where)
    start, stop = training_range(classes, LabelCentredSlices(margin=margin))
    assert 0 <= start < stop <= n_slices
    if where and margin:
        assert set(np.flatnonzero(classes.any(axis=(1, 2)))) <= set(range(start, stop))


@pytest.mark.parametrize("n_slices", [30, 48, 90, 131])
def test_training_slices_are_resized_to_48(rng, n_slices: int) -> None:
    image = rng.random((n_slices, 2, 8, 8), dtype=np.float32)
    classes = labelled(n_slices, 0, n_slices - 1)
    classes[::3, 3, 3] = 2
    found, found_classes = training_slices(image, classes, LabelCentredSlices())
    assert found.shape == (48, 2, 8, 8)
    assert found.dtype == np.float32
    # PyTorch resizes two axes: slices and, by a factor of one, everything else.
    flat = torch.from_numpy(image.reshape(1, 1, n_slices, -1))
    expected = torch.nn.functional.interpolate(
        flat, size=(48, flat.shape[3]), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(found.reshape(48, -1), expected[0, 0].numpy(), atol=1e-5)
    flat_classes = torch.from_numpy(classes.reshape(1, 1, n_slices, -1))
    nearest = torch.nn.functional.interpolate(
        flat_classes, size=(48, flat_classes.shape[3]), mode="nearest-exact"
    )
    np.testing.assert_array_equal(found_classes.reshape(48, -1), nearest[0, 0].numpy())


def test_training_slices_without_a_rule_or_a_count(rng) -> None:
    image = rng.random((40, 1, 8, 8), dtype=np.float32)
    classes = labelled(40, 10, 20)
    for rule, expected in (
        (None, slice(0, 40)),
        (LabelCentredSlices(margin=4, count=None), slice(6, 24)),
    ):
        found, found_classes = training_slices(image, classes, rule)
        np.testing.assert_array_equal(found, image[expected])
        np.testing.assert_array_equal(found_classes, classes[expected])


def test_an_unlabelled_case_teaches_background(rng) -> None:
    image = rng.random((100, 1, 8, 8), dtype=np.float32)
    found, classes = training_slices(image, labelled(100), LabelCentredSlices())
    assert len(found) == len(classes) == 48
    assert not classes.any()


def test_inv_ornt_aff_agrees_with_the_helper(rng) -> None:
    """The helper above keeps voxels where they are in the world."""
    volume = unit_volume(rng, (4, 5, 6))
    moved = stored_as(volume, "SRA")
    change = ornt_transform(io_orientation(volume.affine), axcodes2ornt("SRA"))
    to_old = inv_ornt_aff(change, volume.shape)
    new = np.array([1, 2, 3, 1])
    old = np.rint(to_old @ new).astype(int)[:3]
    assert moved.array[tuple(new[:3])] == volume.array[tuple(old)]
    np.testing.assert_allclose(moved.affine @ new, volume.affine @ [*old, 1], atol=1e-9)
