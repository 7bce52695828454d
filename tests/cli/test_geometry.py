"""Headers out of the ordinary, through every command: what is said, and what `--geometry` does."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from leanseg.datasets import load_case, open_dataset
from leanseg.evaluation import evaluate, read_scores
from leanseg.volumes import read_volume

TRUE = np.diag([-1.25, -1.25, 10, 1])
WRONG = np.diag([-1.0, -1, 1, 1])


def save(path: Path, array: np.ndarray) -> None:
    """As ACDC: the qform is right, the sform is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, TRUE), path)
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    header["qform_code"], header["sform_code"] = 1, 2
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = WRONG[row]
    content[:348] = header.binaryblock
    path.write_bytes(bytes(content))


@pytest.fixture
def acdc(tmp_path: Path) -> Path:
    for case in range(2):
        grey = np.random.default_rng(case).normal(100, 30, (24, 24, 6)).astype(np.int16)
        label = np.zeros(grey.shape, np.uint8)
        label[8:16, 8:16, 2:5] = 1
        save(tmp_path / f"acdc/images/c{case}.nii", grey)
        save(tmp_path / f"acdc/labels/c{case}.nii", label)
    return tmp_path / "acdc"


def test_info_says_it_and_takes_a_choice(leanseg, acdc):
    path = acdc / "images/c0.nii"
    for options, spacing in (((), sitk.ReadImage(str(path)).GetSpacing()), (("sform",), (1, 1, 1))):
        done = leanseg("info", path, "--json", *(("--geometry", *options) if options else ()))
        found = json.loads(done.out)
        assert found["spacing_mm"] == pytest.approx(spacing)
        assert found["notes"][0].endswith(f"the {options[0] if options else 'qform'} counts")
    assert leanseg("info", path, "--geometry", "best").status == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluate(leanseg, acdc, tmp_path, workers):
    labels = acdc / "labels"
    for geometry, ml in (("auto", 192 * 15.625e-3), ("sform", 0.192), ("qform", 3.0)):
        folder = tmp_path / f"{geometry}{workers}"
        done = leanseg(
            *("evaluate", labels, labels, "--output", folder, "--workers", workers),
            *("--geometry", geometry),
        )
        assert done.status == 0
        taken = "sform" if geometry == "sform" else "qform"
        assert done.out.count(f"the {taken} counts") == 2
        scores = read_scores(folder / "scores.json")
        assert scores["label_1"].reference_ml == pytest.approx(ml)
        assert len(scores.notes) == 2
        from_python = evaluate(labels, labels, geometry=geometry, n_workers=workers)
        assert from_python.cases == scores.cases


def test_check_and_convert(leanseg, acdc, tmp_path):
    done = leanseg("check", acdc)
    assert done.status == 0
    assert done.out.count("the qform counts") == 4
    done = leanseg(
        "convert", acdc, "--to", "plain", "--output", tmp_path / "s", "--geometry", "sform"
    )
    assert done.out.count("the sform counts") == 4
    # What was chosen stands in the new headers, which contradict themselves no more.
    for case in open_dataset(tmp_path / "s"):
        image, label = load_case(case)
        assert image.spacing_mm == label.spacing_mm == (1, 1, 1)
        assert image.notes == label.notes == ()


def test_a_label_map_without_its_scans_header(leanseg, acdc, tmp_path):
    label = read_volume(acdc / "labels/c1.nii").array
    nib.save(nib.Nifti1Image(label, np.eye(4)), acdc / "labels/c1.nii")
    assert "--take-header" in leanseg("check", acdc).out
    assert leanseg("check", acdc, "--take-header").status == 2
    done = leanseg("check", acdc, "--fix", tmp_path / "copy", "--take-header")
    assert done.status == 0
    assert "labels kept:\n  c1: 100.0%" in done.out
    for case in open_dataset(tmp_path / "copy"):
        image, found = load_case(case)
        np.testing.assert_array_equal(found.array, label)
        np.testing.assert_array_equal(image.affine, read_volume(acdc / "images/c0.nii").affine)


@pytest.mark.parametrize("kind", ["ct", "shifted ct", "mr"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("place", ["references", "predictions"])
def test_a_scan_is_no_label_map(leanseg, tmp_path, kind, named, place):
    rng = np.random.default_rng(1)
    grey = rng.integers(-1024, 400, (20, 20, 6)) + (1024 if kind == "shifted ct" else 0)
    grey = np.abs(grey) if kind == "mr" else grey
    label = np.zeros(grey.shape, np.uint8)
    label[5:12, 5:12, 2:4] = 1
    for folder, array in (("grey", grey.astype(np.int16)), ("whole", label)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(array, TRUE), tmp_path / folder / "c.nii.gz")
    pair = (tmp_path / "whole", tmp_path / "grey")
    done = leanseg(
        *("evaluate", *(pair if place == "references" else pair[::-1])),
        *(("--labels", "liver=1") if named else ()),
    )
    assert done.status == 2
    assert "grey/c.nii.gz" in done.err
    wanted = "labels run from -10" if kind == "ct" else "different values, so it looks like a scan"
    assert wanted in done.err


def test_predict(leanseg, model, acdc, tmp_path):
    command = (
        "predict",
        model,
        acdc / "images",
        "--output",
        tmp_path / "masks",
        "--engine",
        "torch",
    )
    done = leanseg(*command)
    assert done.status == 0
    assert done.out.count("the qform counts") == 2
    # The mask has the scan's header bit for bit, so that it lies on the scan in every program.
    for name in ("c0", "c1"):
        mask = tmp_path / f"masks/{name}.nii.gz"
        image = sitk.ReadImage(str(mask))
        assert image.GetSpacing() == pytest.approx((1.25, 1.25, 10))
        np.testing.assert_array_equal(nib.load(mask).affine, WRONG)
    # Another choice is another result, and does not pass for the one that is there.
    done = leanseg(*command, "--geometry", "sform")
    assert done.status == 1
    assert "not from this model and scan" in done.out
    done = leanseg(*command, "--geometry", "sform", "--overwrite")
    assert done.out.count("the sform counts") == 2
    records = json.loads((tmp_path / "masks/predictions.json").read_text())["cases"]
    assert records["c0"]["sources"][0]["options"] == {"geometry": "sform"}
