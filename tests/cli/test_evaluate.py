"""`leanseg evaluate`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

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


def test_table_and_files(leanseg, folders):
    options = ("--labels", "organ=1", "--output", folders / "out", "--per-case")
    outcome = leanseg("evaluate", folders / "p", folders / "r", *options)
    assert outcome.status == 0
    assert "organ, 2 cases" in outcome.out
    dice = next(line.split() for line in outcome.out.splitlines() if line.startswith("Dice "))
    assert dice == ["Dice", "0.875", "±", "0.177", "0.875", "0.750", "second"]
    scores = read_scores(folders / "out" / "scores.json")
    assert scores.summary["organ"]["hausdorff_mm"]["worst"] == pytest.approx(1.0)
    ways = {line[:30].strip(): line.split()[-3:] for line in outcome.out.splitlines()}
    # 64 voxels in slices 2 to 5 of 10 x 10; the second case finds 48 of them and 16 others.
    assert ways["mean of cases, whole scans"] == ["0.8750", "0.8750", "0.9915"]
    assert ways["pooled voxels, whole scans"] == ["0.8750", "0.8750", "0.9915"]
    assert ways["mean of cases, labelled slices"] == ["0.8750", "0.8750", "0.9762"]
    assert ways["pooled voxels, labelled slices"] == ["0.8750", "0.8750", "0.9762"]
    assert (folders / "out" / "scores.csv").read_text().startswith("case,label,dice,")


def test_labels_by_the_names_beside_predictions(leanseg, folders):
    """As `leanseg compare` has them."""
    for case in ("first", "second"):
        found = np.asarray(nibabel.load(folders / f"p/{case}.nii.gz").dataobj)
        save(folders / f"p/{case}.nii.gz", 7 * found)
    names = {"background": 0, "other": 1, "Organ": 7}
    (folders / "p/dataset.json").write_text(json.dumps({"labels": names}))
    labels = ("--labels", "organ=1,spleen=2")
    outcome = leanseg("evaluate", folders / "p", folders / "r", *labels, "-o", folders / "out")
    assert outcome.status == 0, outcome
    assert "labels in the predictions: organ=7" in outcome.err
    assert "not in the predictions, so not scored: spleen" in outcome.err
    given = (folders / "p", "--references", folders / "r", *labels, "-o", folders / "compared")
    assert leanseg("compare", *given).status == 0
    compared = json.loads((folders / "compared/compare.json").read_text())
    scores = read_scores(folders / "out/scores.json")
    mean = scores.summary["organ"]["dice"]["mean"]
    assert mean == pytest.approx(0.875)
    assert [method["mean"] for method in compared["groups"][0]["methods"]] == [mean]


def test_all_labels_together(leanseg, folders):
    outcome = leanseg("evaluate", folders / "p", folders / "r", "--labels", "organ=1")
    assert "all labels" not in outcome.out
    outcome = leanseg("evaluate", folders / "p", folders / "r", "--labels", "organ=1,other=2")
    lines = {line[:17].strip(): line for line in outcome.out.splitlines()}
    assert "all labels" in outcome.out
    assert "0.875 ± 0.177" in lines["Dice of all voxel"]
    assert "0.875 ± 0.177" in lines["mean Dice (macro)"]
    assert "Dice, labelled slices" in outcome.out


def test_options_reach_the_scores(leanseg, folders):
    (folders / "p" / "second.nii.gz").unlink()
    save(folders / "p" / "extra.nii.gz", np.zeros((10, 10, 10)))
    options = ["--tolerance-mm", 2, "--empty", "perfect", "--scan-border", "open"]
    options += ["--allow-missing", "--labels", "organ=1,tumour=2"]
    options += ["--prediction-labels", "tumour=5", "--output", folders / "out"]
    outcome = leanseg("evaluate", folders / "p", folders / "r", *options)
    assert outcome.status == 0
    assert "prediction extra has no reference" in outcome.err
    scores = read_scores(folders / "out" / "scores.json")
    assert scores.settings == {
        "surface_tolerance_mm": 2.0,
        "empty": "perfect",
        "one_empty_distance": "undefined",
        "scan_border": "open",
        "prediction_labels": {"organ": [1], "tumour": [5]},
    }
    assert scores.summary["tumour"]["dice"]["mean"] == 1.0
    assert scores.of_label("organ")[1].metrics["dice"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{}/p", "{}/absent"], "absent"),
        (["{}/p", "{}/r", "--labels", "organ"], "'organ'"),
        (["{}/p", "{}/r", "--labels", ""], "name=1"),
        (["{}/p", "{}/r", "--empty", "zero"], "'perfect'"),
        (["{}/p", "{}/r", "--tolerance-mm", "-1"], "-1.0"),
        (["{}/p", "{}/r", "--output", "{}/r/first.nii.gz"], "is a file"),
    ],
)
def test_bad_input(leanseg, folders, arguments, said):
    leanseg("evaluate", *(each.format(folders) for each in arguments)).assert_refused(said)


def test_ignored_voxels(leanseg, folders):
    for case in ("first", "second"):
        reference = np.asarray(nibabel.load(folders / "r" / f"{case}.nii.gz").dataobj).copy()
        reference[6:] = 255
        save(folders / "r" / f"{case}.nii.gz", reference)
    outcome = leanseg(
        "evaluate", folders / "p", folders / "r", "--ignore", 255, "-o", folders / "o"
    )
    assert outcome.status == 0
    assert "voxels of 255 in the references are ignored" in " ".join(outcome.out.split())
    scores = read_scores(folders / "o" / "scores.json")
    assert list(scores.labels) == ["label_1"]
    # Of the second prediction 48 voxels lie on the 64 of the reference, and none beside them.
    assert [score.metrics["dice"] for score in scores.cases] == [1, pytest.approx(2 * 48 / 112)]
    outcome = leanseg("evaluate", folders / "p", folders / "r", "--labels", "a=1", "--ignore", 1)
    assert outcome.status == 2
    assert "value 1 is ignored and also belongs to the label 'a'" in outcome.err
