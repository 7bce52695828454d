"""Real scans in all 48 orientations: the mask follows, header and affine bit for bit."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.inference import Model, load_model
from leanseg.modelfile import Member, ModelFile, NetworkSpec
from leanseg.plan import HounsfieldWindow, QuantileWindow
from leanseg.volumes import read_volume, write_mask
from plans import slices

SCANS = (
    "abdomen_ircad01/ct.nii.gz",
    "totalsegmentator_peer/example_ct.nii.gz",
    "totalsegmentator_peer/example_ct_sm.nii.gz",
    "totalsegmentator_peer/example_mr_sm.nii.gz",
)
GEOMETRY = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


def thinned(path: Path) -> nib.Nifti1Image:
    """At most about 64 voxels an axis, of the very scan: every n-th voxel, the affine along."""
    image = nib.load(path)
    steps = [max(n // 56, 1) for n in image.shape[:3]]
    return image.slicer[tuple(slice(None, None, step) for step in steps)]


def threshold_model(known_engine, window) -> Model:
    plan = slices((48, 40), ("bright",), window=window, largest_component=True)
    spec = NetworkSpec(name="known", in_channels=1, out_channels=1)
    file = ModelFile.of(plan, Member(spec, {}))
    return Model(file, lambda lanes: {"main": known_engine()})


@pytest.mark.parametrize(
    "name",
    # Of the second scan, the third is the same in coarser voxels.
    [pytest.param(name, marks=[pytest.mark.slow] * (name == SCANS[1])) for name in SCANS],
)
def test_in_all_48_orientations(
    shared_data: Path, tmp_path: Path, known_engine, all_48, image_as, name: str
) -> None:
    window = QuantileWindow(low=0.01, high=0.99) if "_mr_" in name else HounsfieldWindow()
    model = threshold_model(known_engine, window)
    base = thinned(shared_data / name)
    in_world = None
    for codes in all_48:
        scan_path, mask_path = tmp_path / f"{codes}.nii", tmp_path / f"{codes}_mask.nii"
        scan = image_as(base, codes)
        nib.save(scan, scan_path)
        volume = read_volume(scan_path)
        write_mask(mask_path, model.predict(volume).array, like=volume)
        scan, mask = nib.load(scan_path), nib.load(mask_path)
        assert mask.affine.tobytes() == scan.affine.tobytes()
        for field in GEOMETRY:
            assert mask.header[field].tobytes() == scan.header[field].tobytes(), field
        assert mask.get_data_dtype() == np.uint8
        canonical = np.asanyarray(nib.as_closest_canonical(mask).dataobj)
        in_world = canonical if in_world is None else in_world
        np.testing.assert_array_equal(canonical, in_world, err_msg=codes)
        # What is marked is bright, what is not marked is mostly dark: the mask lies on the scan.
        values = np.asanyarray(scan.dataobj)
        marked = np.asanyarray(mask.dataobj) > 0
        assert np.median(values[marked]) > np.median(values[~marked])
    assert 0.01 < in_world.mean() < 0.9


@pytest.mark.parametrize("name", [SCANS[0], SCANS[2], SCANS[3]])
def test_a_network_in_some_orientations(
    shared_data: Path, tmp_path: Path, model_file: Path, image_as, name: str
) -> None:
    """A real network on the scan's own file, headers as the scanner's software wrote them."""
    model = load_model(model_file, precision="f32")
    image = nib.load(shared_data / name)
    crop = image.slicer[60:160, 60:140, :20] if min(image.shape[:2]) > 200 else image
    in_world = None
    for codes in ("LPS", "RAS", "ASL", "IRP", "PSR", "LIA"):
        path, mask_path = tmp_path / f"{codes}.nii.gz", tmp_path / f"{codes}_mask.nii.gz"
        nib.save(image_as(crop, codes), path)
        volume = read_volume(path)
        write_mask(mask_path, model.predict(volume).array, like=volume)
        canonical = np.asanyarray(nib.as_closest_canonical(nib.load(mask_path)).dataobj)
        in_world = canonical if in_world is None else in_world
        np.testing.assert_array_equal(canonical, in_world, err_msg=codes)
    assert 0 < in_world.mean() < 1


@pytest.mark.parametrize("name", SCANS)
def test_the_scans_own_file(shared_data: Path, tmp_path: Path, known_engine, name: str) -> None:
    """The untouched file: the mask carries the very bytes of its geometry."""
    volume = read_volume(shared_data / name)
    mask_path = tmp_path / "mask.nii.gz"
    model = threshold_model(known_engine, HounsfieldWindow())
    write_mask(mask_path, model.predict(volume).array, like=volume)
    scan, mask = nib.load(shared_data / name), nib.load(mask_path)
    assert mask.shape == scan.shape
    assert mask.affine.tobytes() == scan.affine.tobytes()
    for field in GEOMETRY:
        assert mask.header[field].tobytes() == scan.header[field].tobytes(), field
