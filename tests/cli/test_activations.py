"""`leanseg activations` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_the_command(leanseg, make_model, make_scan, tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.leanseg")
    other = make_model(tmp_path / "other.leanseg", base_filters=8)
    make_scan(tmp_path / "ct.nii.gz")
    out = tmp_path / "out"
    outcome = leanseg(
        "activations", path, tmp_path / "ct.nii.gz", "--against", other, "--output", out
    )
    assert outcome.status == 0
    assert "bottleneck.1.dilated3" in outcome.out
    assert outcome.out.count("channels are dead (monet; ct, 7 of 7 inputs)") == 2
    assert sorted(file.name for file in out.iterdir()) == [
        "activations.json",
        "activations.png",
        "feature-maps.png",
    ]
    studies = json.loads((out / "activations.json").read_text())["studies"]
    assert [study["network"] for study in studies] == ["monet", "monet"]
    assert studies[0]["weights_sha256"] != studies[1]["weights_sha256"]
    outcome = leanseg("activations", path, tmp_path / "ct.nii.gz", "--inputs", "3")
    assert "channels are dead (monet; ct, 3 of 7 inputs)" in outcome.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--channel", "2"), "has no channel 2"),
        (("--against", "nowhere.leanseg"), "nowhere.leanseg: cannot be read"),
        (("--output", "{file}"), "ct.nii.gz: is a file, but results need a folder"),
    ],
)
def test_the_command_refuses(leanseg, make_model, make_scan, tmp_path: Path, options, said) -> None:
    path = make_model(tmp_path / "m.leanseg")
    make_scan(tmp_path / "ct.nii.gz")
    given = [option.format(file=tmp_path / "ct.nii.gz") for option in options]
    outcome = leanseg("activations", path, tmp_path / "ct.nii.gz", *given)
    outcome.assert_refused(said)


def test_one_scan_at_a_time(leanseg, make_model, make_scan, tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.leanseg")
    for name in "ab":
        make_scan(tmp_path / f"{name}.nii.gz")
    leanseg("activations", path, tmp_path).assert_refused("2 scans")


def test_without_torch(leanseg, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("leanseg.errors.find_spec", lambda name: None)
    outcome = leanseg("activations", tmp_path / "m.leanseg", tmp_path / "a.nii")
    outcome.assert_refused("pip install 'leanseg[train]'")
