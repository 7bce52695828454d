"""DICOM at the command line: what is said about it, and what is never said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dicom_writer import volume_datasets, write_series, write_slices

AFFINE = np.array([[-0.7, 0, 0, 40], [0, -0.7, 0, 30], [0, 0, 2.5, -60], [0, 0, 0, 1.0]])
NAME, ID = "Müller^Zoë", "ID-Müller^Zoë"


@pytest.fixture
def array(rng) -> np.ndarray:
    return rng.integers(-500, 500, (24, 20, 8))


@pytest.fixture
def scan(tmp_path: Path, array, rng) -> Path:
    folder = tmp_path / "größe"
    options = {"patient": NAME, "rng": rng, "thickness_mm": 5.0}
    write_series(folder / "one", array, AFFINE, description="portal venous", **options)
    write_series(folder / "two", array[:, :, :3], AFFINE, series_number=9, **options)
    return folder


def test_a_series_is_described(leanseg, scan):
    outcome = leanseg("info", scan, "--series", "portal venous")
    assert outcome.status == 0
    for text in (
        "series 2 (CT, portal venous, 8 slices)",
        "series 9",
        "[24, 20, 8]",
        "[0.7, 0.7, 2.5]",
        "LPS",
        "Explicit VR Little Endian",
    ):
        assert text in outcome.out
    facts = json.loads(leanseg("info", scan, "--series", "9", "--json").out)
    assert [entry["shape"] for entry in facts["series"]] == [[24, 20, 8], [24, 20, 3]]
    assert facts["chosen"] == facts["series"][1]
    assert facts["chosen"]["thickness_mm"] == 5


def test_identifiers_are_shown_only_when_asked_for(leanseg, scan):
    for options in ((), ("--json",)):
        outcome = leanseg("info", scan, "--series", "2", *options)
        assert outcome.status == 0
        assert "Müller" not in outcome.out
        assert "19700101" not in outcome.out
        shown = leanseg("info", scan, "--series", "2", "--show-identifiers", *options)
        assert NAME in shown.out
        assert ID in shown.out


def broken(folder: Path, array: np.ndarray, how: str) -> Path:
    datasets = volume_datasets(array, AFFINE, patient=NAME)
    if how == "mixed patients":
        datasets[3].PatientID = "Other"
    elif how == "missing slice":
        del datasets[4]
    elif how == "no pixels":
        del datasets[4].PixelData
    elif how == "other size":
        datasets[4].Rows = 19
        datasets[4].PixelData = datasets[4].PixelData[: 19 * 24 * 2]
    files = write_slices(folder, datasets)
    if how == "truncated":
        files[4].write_bytes(files[4].read_bytes()[:900])
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("mixed patients", "patient"),
        ("missing slice", "missing"),
        ("no pixels", "pixel"),
        ("other size", "24 x 19"),
        ("truncated", "IM0004"),
    ],
)
def test_what_is_wrong_is_said_without_names(leanseg, model, tmp_path, array, how, said):
    folder = broken(tmp_path / "bad", array, how)
    outcome = leanseg("predict", model, folder, "--output", tmp_path / "out")
    assert outcome.status == 2
    assert said in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert "Müller" not in outcome.err + outcome.out
    assert not list(tmp_path.glob("out/*"))


def test_missing_slices_are_filled_when_asked_for(leanseg, model, tmp_path, array):
    folder = broken(tmp_path / "gap", array, "missing slice")
    outcome = leanseg("predict", model, folder, "--output", tmp_path / "out", "--fill-missing")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "out/gap.nii.gz").is_file()


def test_prediction_says_no_name(leanseg, model, scan, tmp_path):
    output = tmp_path / "out"
    for form in ("nifti", "dicom-seg"):
        outcome = leanseg(
            "predict", model, scan, "--output", output, "--format", form, "--series", "2"
        )
        assert outcome.status == 0, outcome.err
        assert "Müller" not in outcome.out + outcome.err
    assert "Müller" not in (output / "predictions.json").read_text(encoding="utf-8")
