"""`leanseg evaluate --cascade`: tables, files, and what is refused."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from hand_made_cascade import cascade_plan, cube, write_cascade

SHAPE = (24, 24, 6)
AFFINE = np.diag([-1.0, -1.0, 2.5, 1.0])
ORGAN = cube(SHAPE, ((6, 16), (8, 18), (1, 5)))
LESION = cube(SHAPE, ((12, 15), (14, 17), (1, 5)))
NAMES = ["budget.csv", "budget.json"]


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return write_cascade(tmp_path_factory.mktemp("cascade") / "two.leanseg", cascade_plan())


@pytest.fixture
def data(tmp_path, make_scan):
    """Two cases in nnU-Net's layout; in the second, stage 1 sees the upper half alone."""
    label = np.where(LESION, 2, ORGAN * 1)
    for name, stop in (("a", 6), ("b", 3)):
        grey = np.where(np.arange(6) < stop, 10 * label, 0).astype(np.int16)
        make_scan(tmp_path / "data" / "imagesTr" / f"{name}_0000.nii.gz", grey, AFFINE)
        make_scan(tmp_path / "data" / "labelsTr" / f"{name}.nii.gz", label.astype(np.uint8), AFFINE)
    listing = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    return tmp_path / "data"


def test_tables_and_files(leanseg, cascade, data, tmp_path):
    outcome = leanseg("evaluate", cascade, data, "--cascade", "--output", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    # Stage 1 misses 2 of b's 4 slices: its Dice is 2 * 200 / (200 + 400).
    assert "2 of 8 0 of 2 0.833 0.667 b" in lines
    assert "2 (the model's) 0.750 0.500 0 of 2 0.750" in lines
    # What is not bright in the scan the second stage does not find with any box.
    assert "true box 0.833 0.667 b" in lines
    assert "all 2 1.000 1.000" in lines
    assert "False positives per scan: 0.000 with the found box, 0.000 with the true box" in lines
    assert lines[-2].endswith("improve stage 2 first.")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == NAMES
    content = json.loads((tmp_path / "out" / "budget.json").read_text())
    assert content["verdict"] == lines[-2]
    with (tmp_path / "out" / "budget.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["missed_slices"], row["kept_2"]) for row in rows] == [
        ("a", "0", "1.0"),
        ("b", "2", "0.5"),
    ]


def test_values_of_labels(leanseg, cascade, data):
    (data / "dataset.json").write_text(
        (data / "dataset.json").read_text().replace("organ", "pancreas")
    )
    leanseg("evaluate", cascade, data, "--cascade").assert_refused("no label 'organ'", "pancreas")
    options = ["--cascade", "--labels", "organ=1,lesion=2"]
    assert leanseg("evaluate", cascade, data, *options).status == 0


def test_the_organ_alone(leanseg, data, tmp_path):
    model = write_cascade(tmp_path / "one.leanseg", cascade_plan(("organ",)))
    outcome = leanseg("evaluate", model, data, "--cascade")
    assert outcome.status == 0, outcome.err
    assert "Dice of organ, 2 case(s)" in outcome.out
    assert "lesion" not in outcome.out


def test_bad_input(leanseg, cascade, model, data, tmp_path, make_scan):
    def refused(*arguments):
        return leanseg("evaluate", *arguments, "--cascade").assert_refused

    refused(model, data)(f"{model}: is no cascade", "give a model that is one")
    refused(data, data)("give the path of a .leanseg model file")
    refused(cascade, tmp_path / "none")("none")
    refused(cascade, data, "--tolerance-mm", 2)("--tolerance-mm is for label maps")
    refused(cascade, data, "--lesions", "lesion")("--lesions is for label maps")
    refused(cascade, data, "--ignore", 2)("the value 2 is ignored")
    make_scan(tmp_path / "scans" / "a.nii.gz", np.zeros(SHAPE, np.int16))
    refused(cascade, tmp_path / "scans")("scans: no case has labels to compare with")
