from __future__ import annotations

import json
import re
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from leanseg.cli.main import run
from leanseg.evaluation import read_scores


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), np.diag([1.0, 2.0, 3.0, 1])), path)


@pytest.fixture
def folders(tmp_path):
    for case, shift in (("first", 0), ("second", 1)):
        reference, prediction = np.zeros((2, 10, 10, 10))
        reference[2:6, 2:6, 2:6] = 1
        prediction[2 + shift : 6 + shift, 2:6, 2:6] = 1
        save(tmp_path / "p" / f"{case}.nii.gz", prediction)
        save(tmp_path / "r" / f"{case}.nii.gz", reference)
    return tmp_path


def call(*arguments):
    with pytest.raises(SystemExit) as raised:
        run(["evaluate", *map(str, arguments)])
    return raised.value.code


def test_table_and_files(folders, capsys):
    status = call(
        folders / "p",
        folders / "r",
        "--labels",
        "organ=1",
        "--output",
        folders / "out",
        "--per-case",
    )
    printed = capsys.readouterr()
    assert status == 0
    assert "organ, 2 cases" in printed.out
    assert re.search(
        r"Dice\s+│\s+0\.875 ± 0\.177\s+│\s+0\.875\s+│\s+0\.750\s+│ second", printed.out
    )
    assert "scored second (2 of 2)" in printed.err
    scores = read_scores(folders / "out" / "scores.json")
    assert scores.summary["organ"]["hausdorff_mm"]["worst"] == pytest.approx(1.0)
    assert (folders / "out" / "scores.csv").read_text().startswith("case,label,dice,")


def test_options_reach_the_scores(folders, capsys):
    (folders / "p" / "second.nii.gz").unlink()
    save(folders / "p" / "extra.nii.gz", np.zeros((10, 10, 10)))
    labels = folders / "dataset.json"
    labels.write_text(json.dumps({"labels": {"0": "background", "1": "organ", "2": "tumour"}}))
    options = ["--tolerance-mm", 2, "--empty", "perfect", "--one-empty-distance", "diagonal"]
    options += ["--scan-border", "open", "--allow-missing", "--labels-file", labels]
    options += ["--prediction-labels", "tumour=5", "--output", folders / "out"]
    assert call(folders / "p", folders / "r", *options) == 0
    assert "prediction extra has no reference" in capsys.readouterr().err
    scores = read_scores(folders / "out" / "scores.json")
    assert scores.settings == {
        "surface_tolerance_mm": 2.0,
        "empty": "perfect",
        "one_empty_distance": "diagonal",
        "scan_border": "open",
        "prediction_labels": {"organ": [1], "tumour": [5]},
    }
    assert scores.summary["tumour"]["dice"]["mean"] == 1.0
    assert scores.of_label("organ")[1].metrics["hausdorff_mm"] > 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/p", "{}/absent"], "absent does not exist"),
        (["{}/p", "{}/r", "--labels", "organ"], "is not of the form name=1"),
        (["{}/p", "{}/r", "--labels", ""], "is not of the form name=1"),
        (["{}/p", "{}/r", "--empty", "zero"], "should be 'undefined' or 'perfect'"),
        (["{}/p", "{}/r", "--tolerance-mm", "-1"], "is -1.0 but should be"),
        (["{}/p", "{}/r", "--labels-file", "{}/no.json"], "no.json does not exist"),
        (["{}/p", "{}/r", "--output", "{}/r/first.nii.gz"], "is a file; give a folder"),
        (["{}/p", "{}/r", "--labels", "a=1", "--labels-file", "{}/no.json"], "one of the two"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(folders, capsys, arguments, message):
    assert call(*(argument.format(folders) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("leanseg: ")
    assert error.count("\n") == 1


def test_help_loads_no_heavy_module():
    script = (
        "import sys\nfrom leanseg.cli.main import run\n"
        "try:\n    run(['evaluate', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'scipy', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")


def test_evaluation_never_imports_torch():
    script = "import sys, leanseg.evaluation; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
