"""`leanseg robustness`: tables, files, the model file, and what is refused."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from hand_made_cascade import cascade_plan, cube, write_cascade
from leanseg.modelfile import read_model

SHAPE = (24, 24, 6)
AFFINE = np.diag([-1.0, -1.0, 2.5, 1.0])
ORGAN = cube(SHAPE, ((6, 16), (8, 18), (1, 5)))
LESION = cube(SHAPE, ((12, 15), (14, 17), (1, 5)))


@pytest.fixture
def cascade(tmp_path):
    """Organ from 9.5 HU on, lesion from 19.5."""
    return write_cascade(tmp_path / "two.leanseg", cascade_plan())


@pytest.fixture
def data(tmp_path, make_scan):
    label = np.where(LESION, 2, ORGAN * 1)
    for name in "ab":
        grey = np.select([LESION, ORGAN], [60, 15], -100).astype(np.int16)
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


def test_tables_files_and_the_model_file(leanseg, cascade, data, tmp_path):
    before = cascade.read_bytes()
    options = ("--factors", "offset, dropped,orientation", "--output", tmp_path / "out")
    outcome = leanseg("robustness", cascade, data, *options, "--write")
    assert outcome.status == 0, outcome.err
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    # 20 HU less: what was 15 is no organ any more, but the lesion is; 50 less: nothing is found.
    organ, lesion = ORGAN.sum(), LESION.sum()
    dice = 2 * lesion / (lesion + organ)
    wanted = f"organ -20 HU 2 {dice:.3f} ± 0.000 {dice:.3f} {dice - 1:+.3f} ± 0.000"
    assert wanted in lines
    assert "lesion -20 HU 2 1.000 ± 0.000 1.000 +0.000 ± 0.000" in lines
    assert "orientation: every voxel has the same label" in lines
    assert any(line.startswith("offset, below no change organ +0.0") for line in lines)
    # Six slices are fewer than ten.
    assert "dropped, every 10th: left out for 2 case(s)" in outcome.out
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert sorted(files) == ["robustness.csv", "robustness.json", "robustness.png"]
    content = json.loads(files["robustness.json"].read_text())
    assert content["summary"]["offset"]["organ"]["levels"]["-20 HU"]["mean"] == pytest.approx(dice)
    with files["robustness.csv"].open() as file:
        assert sum(row["level"] == "-20 HU" for row in csv.DictReader(file)) == 4
    with Image.open(files["robustness.png"]) as picture:
        assert min(picture.size) > 300
    facts = yaml.safe_load(leanseg("info", cascade).out)["provenance"]["robustness"]
    assert facts["n_cases"] == 2
    assert facts["differences"]["offset"]["organ"]["-20 HU"] == pytest.approx(dice - 1, abs=1e-4)
    assert facts["data_fingerprint"] == content["data"]["fingerprint"]
    # The model is the same otherwise, and runs.
    after = read_model(cascade)
    cascade.write_bytes(before)
    assert after.weights_sha256 == read_model(cascade).weights_sha256
    assert b"robustness" not in before


def test_without_write_the_model_file_stays(leanseg, cascade, data):
    before = cascade.read_bytes()
    assert leanseg("robustness", cascade, data, "--factors", "scale").status == 0
    assert cascade.read_bytes() == before


def test_bad_input(leanseg, cascade, data, tmp_path, make_scan):
    def refused(*arguments):
        return leanseg("robustness", *arguments).assert_refused

    refused(cascade, data, "--factors", "noise,blur")("factor 'blur' is not known", "thickness")
    refused(cascade, data, "--factors", "")("factor '' is not known")
    refused(cascade, data, "--labels", "liver=1")(f"{cascade}: has no label 'liver'", "organ")
    refused(data, data)("give the path of a .leanseg model file")
    refused(cascade, tmp_path / "none")("none")
    refused(cascade, data, "--output", data / "dataset.json")("dataset.json")
    (data / "dataset.json").write_text(
        (data / "dataset.json").read_text().replace("organ", "liver").replace("lesion", "tumour")
    )
    refused(cascade, data)("has none of the model's labels organ, lesion", "liver")
    make_scan(tmp_path / "scans" / "a.nii.gz", np.zeros(SHAPE, np.int16))
    refused(cascade, tmp_path / "scans")("scans: no case has labels to compare with")
