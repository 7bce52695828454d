"""`leanseg info` on a model, a scan, a dataset and what is none of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.modelfile import read_model
from leanseg.modelfile.manifest import Manifest


def test_a_model(leanseg, model: Path) -> None:
    outcome = leanseg("info", model)
    assert outcome.status == 0
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in outcome.out.splitlines())
    assert facts["network"].strip() == "monet {'base_filters': 4}"
    assert facts["labels"].strip() == "1 organ"
    assert facts["window"].strip() == "hu -150 to 200, scaled by minmax"
    assert facts["validation Dice"].strip() == "organ 0.812 (1 case)"
    assert read_model(model).weights_sha256 in outcome.out


def test_a_models_parameters_are_counted_as_published(leanseg, make_model, tmp_path) -> None:
    """401,666 trainable parameters: 403,556 without the running statistics (paper 000)."""
    path = make_model(tmp_path / "monet.leanseg", base_filters=16)
    assert "401,666" in leanseg("info", path).out


def test_a_model_as_json(leanseg, model: Path) -> None:
    outcome = leanseg("info", model, "--json")
    assert outcome.status == 0
    assert Manifest.model_validate_json(outcome.out) == read_model(model).manifest


def test_a_scan(leanseg, make_scan, tmp_path: Path) -> None:
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 7
    scan = make_scan(tmp_path / "scan.nii.gz", array)
    outcome = leanseg("info", scan)
    assert outcome.status == 0
    assert "4 x 5 x 6" in outcome.out
    assert "-7 to 112 (int16)" in outcome.out
    assert "LPS" in outcome.out
    facts = json.loads(leanseg("info", scan, "--json").out)
    image = nib.load(scan)
    assert facts["shape"] == [4, 5, 6]
    assert facts["spacing_mm"] == pytest.approx(np.linalg.norm(image.affine[:3, :3], axis=0))
    assert facts["range"] == [-7, 112]
    assert facts["orientation"] == "".join(nib.aff2axcodes(image.affine))
    np.testing.assert_array_equal(facts["affine"], image.affine)


def test_a_scan_with_nan_is_valid_json(leanseg, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz", np.full((3, 3, 3), np.nan, dtype=np.float32))
    assert json.loads(leanseg("info", scan, "--json").out)["range"] is None
    assert "nan" in leanseg("info", scan).out


@pytest.mark.parametrize("by_listing", [False, True])
def test_a_dataset(leanseg, make_scan, tmp_path: Path, by_listing: bool) -> None:
    make_scan(tmp_path / "data" / "imagesTr" / "p1.nii.gz")
    make_scan(tmp_path / "data" / "imagesTr" / "p2.nii.gz")
    make_scan(tmp_path / "data" / "labelsTr" / "p1.nii.gz", np.ones((4, 4, 4), dtype=np.uint8))
    listing = {
        "name": "Livers",
        "labels": {"0": "background", "1": "liver"},
        "modality": {"0": "CT"},
        "training": [{"image": "imagesTr/p1.nii.gz", "label": "labelsTr/p1.nii.gz"}],
        "test": ["imagesTr/p2.nii.gz"],
    }
    source = tmp_path / "data"
    (source / "dataset.json").write_text(json.dumps(listing))
    source = source / "dataset.json" if by_listing else source
    outcome = leanseg("info", source)
    assert outcome.status == 0
    for part in ("Livers", "decathlon", "2, 1 with a label", "1 liver", "CT"):
        assert part in outcome.out
    facts = json.loads(leanseg("info", source, "--json").out)
    assert [case["name"] for case in facts["cases"]] == ["p1", "p2"]
    assert facts["cases"][1]["label"] is None
    assert facts["labels"] == {"liver": 1}


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "hello", "notes.txt: is not a leanseg model file"),
        ("scan.nii", "hello", "scan.nii: not a NIfTI file"),
        ("scan.mha", "hello", "scan.mha"),
        ("dataset.json", "{", "dataset.json: not valid JSON"),
        ("absent.nii.gz", None, "absent.nii.gz: there is no such file"),
        ("absent", None, "absent: cannot be read"),
        ("folder/", None, "folder: the folder is empty"),
    ],
)
def test_junk(leanseg, tmp_path: Path, name: str, content, message: str, as_json) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    outcome = leanseg("info", path, *as_json)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"leanseg: {tmp_path}")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
