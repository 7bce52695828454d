"""Which affine a NIfTI header means, against nibabel and SimpleITK."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.errors import GeometryError
from leanseg.volumes import open_volume, read_volume, write_mask

SHAPE = (6, 7, 8)
TRUE = np.array([[-1.3, 0, 0, 5], [0, -1.3, 0, 6], [0, 0, 10, 7], [0, 0, 0, 1.0]])
TILTED = np.array([[-1, 0, 0, 0], [0, -1, 1.0919107, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])


def save(
    path: Path,
    qform: np.ndarray = TRUE,
    sform: np.ndarray = TRUE,
    codes: tuple[int, int] = (1, 1),
    kind: type = nib.Nifti1Image,
    **fields: object,
) -> Path:
    """A file with both forms, whatever nibabel would make of them."""
    image = kind(np.zeros(SHAPE, np.int16), qform)
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    size = image.header.sizeof_hdr
    header = type(image.header)(bytes(content[:size]), check=False)
    header["qform_code"], header["sform_code"] = codes
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = sform[row]
    for name, value in fields.items():
        header[name] = value
    content[:size] = header.binaryblock
    path.write_bytes(content)
    return path


def scaled(*factors: float) -> np.ndarray:
    return TRUE @ np.diag([*factors, 1.0])


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (0, 0)])
@pytest.mark.parametrize("unit", range(8))
def test_units_count_however_the_affine_came_about(tmp_path, unit, codes, kind) -> None:
    path = save(tmp_path / "a.nii", codes=codes, kind=kind, xyzt_units=unit | 8)
    found = read_volume(path)
    mm = {1: 1e3, 3: 1e-3}.get(unit, 1.0)
    assert found.spacing_mm == pytest.approx(np.multiply((1.3, 1.3, 10), mm))
    if kind is nib.Nifti1Image:
        assert found.spacing_mm == pytest.approx(sitk.ReadImage(str(path)).GetSpacing())
    np.testing.assert_allclose(found.affine[:3] / mm, nib.load(path).affine[:3], rtol=1e-12)
    assert any("unit" in note or "metres" in note for note in found.notes) == (unit not in (0, 2))
    write_mask(tmp_path / "m.nii", np.ones(SHAPE, np.uint8), found)
    np.testing.assert_array_equal(read_volume(tmp_path / "m.nii").affine, found.affine)
    assert nib.load(tmp_path / "m.nii").header["xyzt_units"] == unit | 8


@pytest.mark.parametrize(
    ("sform", "taken"),
    [
        (np.diag([-1.0, -1, 1, 1]), "qform"),  # ACDC as published
        (scaled(1.02, 1, 1), "qform"),
        (np.zeros((4, 4)), "qform"),
        (np.full((4, 4), np.nan), "qform"),
        (scaled(-1, 1, 1), "sform"),  # mirrored
        (TRUE + np.array([[0, 0, 0, 9.0], *[[0] * 4] * 3]), "sform"),
        (scaled(1.002, 1, 1), "sform"),
    ],
)
def test_a_contradiction_is_said_and_settled(tmp_path, sform, taken) -> None:
    path = save(tmp_path / "a.nii", sform=sform, codes=(1, 2))
    expected = {"sform": sform, "qform": TRUE}
    found = open_volume(path)
    np.testing.assert_allclose(found.affine, expected[taken], rtol=1e-6)
    (note,) = found.notes
    assert note.endswith(f"the {taken} counts")
    assert found.read().notes == found.notes
    if taken == "qform":
        image = sitk.ReadImage(str(path))
        assert found.spacing_mm == pytest.approx(image.GetSpacing())
        if np.isfinite(sform).all():
            origin = np.multiply(image.GetOrigin(), (-1, -1, 1))
            np.testing.assert_allclose(found.affine[:3, 3], origin)
    if np.isfinite(sform).all() and sform.any():
        for geometry, affine in expected.items():
            chosen = read_volume(path, geometry=geometry)
            np.testing.assert_allclose(chosen.affine, affine, rtol=1e-6)
    else:
        with pytest.raises(GeometryError):
            read_volume(path, geometry="sform")


@pytest.mark.parametrize(
    ("options", "n_notes"),
    [
        ({}, 0),
        ({"sform": TRUE + 1e-4, "codes": (1, 4)}, 0),
        ({"codes": (0, 1), "pixdim": [1, 1.3, 1.3, 10, 0, 0, 0, 0]}, 0),
        ({"codes": (0, 1), "pixdim": [1, 1, 1, 1, 0, 0, 0, 0]}, 1),
        ({"codes": (0, 1), "pixdim": [1, 0, 0, 0, 0, 0, 0, 0]}, 0),
        ({"codes": (0, 0)}, 1),
        ({"codes": (1, 0), "sform": np.eye(4)}, 0),
        ({"codes": (0, 1), "sform": TILTED, "pixdim": [1, 1, 1, 3, 0, 0, 0, 0]}, 1),
        ({"codes": (0, 1), "sform": TILTED, "pixdim": [1, 1, 1, 3.1925, 0, 0, 0, 0]}, 1),
    ],
)
def test_one_form_counts_alone_and_only_oddities_are_said(tmp_path, options, n_notes) -> None:
    path = save(tmp_path / "a.nii", **options)
    found = read_volume(path)
    assert len(found.notes) == n_notes
    np.testing.assert_allclose(found.affine, nib.load(path).affine)
    for geometry in ("sform", "qform"):
        if options.get("codes") != (1, 4) and options:
            np.testing.assert_array_equal(read_volume(path, geometry=geometry).affine, found.affine)


def test_a_tilted_sform_is_not_given_up_for_the_qform_that_cannot_tell_it(tmp_path) -> None:
    upright = np.diag([-1.0, -1, 3, 1])
    found = read_volume(save(tmp_path / "a.nii", qform=upright, sform=TILTED))
    np.testing.assert_allclose(found.affine, TILTED)
    assert [("70.0 degrees" in note, "sform counts" in note) for note in found.notes] == [
        (False, True),
        (True, False),
    ]


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.sampled_from([1e-3, 1, 1e3]))
def test_shear_is_said_whatever_the_format(tmp_path_factory, shear, size) -> None:
    affine = np.diag([size, size, 2 * size, 1.0])
    affine[0, 1], affine[0, 2], affine[1, 2] = np.multiply(shear, size)
    path = tmp_path_factory.mktemp("shear") / "a.nii"
    found = read_volume(save(path, sform=affine, codes=(0, 1), pixdim=[1] + [0] * 7))
    a, b, c = (affine[:3, n] / np.linalg.norm(affine[:3, n]) for n in range(3))
    assert bool(found.notes) == (max(abs(a @ b), abs(a @ c), abs(b @ c)) > 1e-3)
