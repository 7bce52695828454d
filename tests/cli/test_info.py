"""`leanseg info` on a model, a scan, a dataset and what is none of them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from leanseg.modelfile import Member, ModelFile, NetworkSpec, read_model, write_model
from leanseg.modelfile.manifest import Manifest
from plans import slices


def test_a_model(leanseg, model: Path) -> None:
    outcome = leanseg("info", model)
    assert outcome.status == 0
    facts = yaml.safe_load(outcome.out)
    ((member,),) = facts["stages"].values()
    assert member["network"]["name"] == "monet"
    assert member["network"]["options"] == {"base_filters": 4}
    assert "labels: [organ]" in outcome.out
    assert facts["provenance"]["training_cases"] == ["a", "b", "c"]
    assert facts["provenance"]["monitor_cases"] == ["d"]
    assert facts["provenance"]["test_cases"] == ["e", "f"]
    assert facts["provenance"]["scores"] == {"organ": 0.8123}
    assert facts["weights_sha256"] == read_model(model).weights_sha256


def test_a_model_of_regions(leanseg, tmp_path) -> None:
    """The values of its label maps that belong to each label."""
    plan = slices((8, 8), ("tumour", "kidney"), inside={"tumour": "kidney"})
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=2, activation="sigmoid")
    member = Member(spec, {"w": np.ones(2, dtype=np.float32)})
    write_model(tmp_path / "m.leanseg", ModelFile.of(plan, member))
    facts = yaml.safe_load(leanseg("info", tmp_path / "m.leanseg").out)
    assert facts["label_values"] == {"tumour": [1], "kidney": [2, 1]}


def test_a_models_parameters_are_counted_as_published(leanseg, make_model, tmp_path) -> None:
    """401,666 trainable parameters: 403,556 without the running statistics (paper 000)."""
    path = make_model(tmp_path / "monet.leanseg", base_filters=16)
    assert "parameters: 401666" in leanseg("info", path).out


def test_a_model_as_json(leanseg, model: Path) -> None:
    outcome = leanseg("info", model, "--json")
    assert outcome.status == 0
    facts = json.loads(outcome.out)
    assert facts["bytes"] == model.stat().st_size
    known = {name: facts[name] for name in Manifest.model_fields}
    assert Manifest.model_validate(known) == read_model(model).manifest


def test_a_scan(leanseg, make_scan, tmp_path: Path) -> None:
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 7
    scan = make_scan(tmp_path / "scan.nii.gz", array)
    outcome = leanseg("info", scan)
    assert outcome.status == 0
    printed = yaml.safe_load(outcome.out)
    facts = json.loads(leanseg("info", scan, "--json").out)
    assert set(printed) == set(facts)
    assert printed["spacing_mm"] == pytest.approx(facts["spacing_mm"], rel=1e-5)
    image = nib.load(scan)
    assert facts["shape"] == [4, 5, 6]
    assert facts["spacing_mm"] == pytest.approx(np.linalg.norm(image.affine[:3, :3], axis=0))
    assert (facts["lowest"], facts["highest"]) == (-7, 112)
    assert facts["orientation"] == "".join(nib.aff2axcodes(image.affine))
    np.testing.assert_array_equal(facts["affine_to_ras_mm"], image.affine)


def test_a_scan_with_nan_is_valid_json(leanseg, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz", np.full((3, 3, 3), np.nan, dtype=np.float32))
    assert json.loads(leanseg("info", scan, "--json").out)["lowest"] is None
    assert leanseg("info", scan).status == 0


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
    printed = yaml.safe_load(outcome.out)
    assert printed["dataset"] == "Livers"
    assert printed["layout"] == "decathlon"
    assert printed["cases"] == ["p1", "p2"]
    facts = json.loads(leanseg("info", source, "--json").out)
    assert [case["name"] for case in facts["cases"]] == ["p1", "p2"]
    assert (facts["n_cases"], facts["n_labelled"]) == (2, 1)
    assert facts["cases"][1]["label_files"] == []
    assert facts["labels"] == {"liver": 1}


@pytest.mark.parametrize("name", ["scan.img", "scan.mgz", "scan.nhdr", "scan"])
def test_every_command_names_the_scans_that_are_read(leanseg, model, tmp_path, name) -> None:
    scan = tmp_path / name
    scan.write_bytes(b"\x5c\x01\0\0" * 100)
    for arguments in (("info", scan), ("predict", model, scan, "-o", tmp_path / "out"),
                      ("evaluate", scan, scan)):  # fmt: skip
        leanseg(*arguments).assert_refused(str(scan), ".nii.gz, .nii, .mha, .mhd, .nrrd", "DICOM")


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(
            (f"{name}", "hello", "is neither a model file (.leanseg) nor a scan that leanseg reads")
            for name in ("notes.txt", "pair.img", "pair.hdr", "brain.mgz", "a.nhdr", "m.pth", "x")
        ),
        ("model.leanseg", "hello", "model.leanseg: is not a leanseg model file"),
        ("scan.nii", "hello", "scan.nii: not a NIfTI file"),
        ("scan.mha", "hello", "scan.mha"),
        ("dataset.json", "{", "dataset.json: not valid JSON"),
        ("absent.nii.gz", None, "absent.nii.gz: there is no such file"),
        (
            "absent",
            None,
            "absent: cannot be read (No such file or directory); give a model file (.leanseg)",
        ),
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
