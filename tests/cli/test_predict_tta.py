"""`leanseg predict --tta` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leanseg.modelfile import ModelFile, read_model, write_model


def predict(model: Path, scan: Path, output: Path, *options: object) -> list[object]:
    return ["predict", model, scan, "--output", output, "--precision", "f32", *options]


def test_the_cost_is_told_and_recorded(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(model, scan, tmp_path / "out", "--tta", "flips,shifts"))
    assert outcome.status == 0, outcome.err
    cost = "8 passes of the network per slice (1 plain, 3 flips, 4 shifts: about 8 times the time)"
    assert cost in outcome.out.splitlines()
    entry = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]["ct"]
    assert (entry["tta"], entry["passes"]) == ("flips,shifts", 8)


def test_without_it_nothing_is_said(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(model, scan, tmp_path / "out"))
    assert "passes" not in outcome.out
    entry = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]["ct"]
    assert (entry["tta"], entry["passes"]) == ("none", 1)


def test_an_ensemble_tells_its_cost(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    file = read_model(model)
    write_model(tmp_path / "three.leanseg", ModelFile.of(file.plan, *file.members * 3))
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(tmp_path / "three.leanseg", scan, tmp_path / "out"))
    assert outcome.status == 0, outcome.err
    assert "3 passes of the network per slice (3 networks: about 3 times the time)" in outcome.out
    more = leanseg(*predict(tmp_path / "three.leanseg", scan, tmp_path / "more", "--tta", "flips"))
    assert "12 passes of the network per slice (3 networks, each 1 plain, 3 flips" in more.out


def test_is_not_the_same_result(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    out = tmp_path / "out"
    assert leanseg(*predict(model, scan, out, "--tta", "flips")).status == 0
    again = leanseg(*predict(model, scan, out, "--tta", "flips"))
    assert "skipped" in again.out
    for options in ((), ("--tta", "shifts")):
        refused = leanseg(*predict(model, scan, out, *options))
        assert refused.status == 2
        assert "already exists, but not from this model" in refused.err
        assert "--overwrite" in refused.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("flip", "'flip' is not known (did you mean 'flips'?); choose none, or one or several of"),
        ("none,shifts", "is none and some at once"),
        ("", "'' is not known"),
    ],
)
def test_names_that_are_none(leanseg, model, make_scan, tmp_path: Path, given, said) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(model, scan, tmp_path / "out", "--tta", given))
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
