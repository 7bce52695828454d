"""`leanseg evaluate --lesions`: what it prints and writes."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest

from leanseg.evaluation import read_scores

pytest.importorskip("panoptica", reason="needs leanseg[lesions]")


@pytest.fixture
def folders(tmp_path):
    """Organ 1, tumour 2 and cyst 3; 9 is ignored; the tumour touches the cyst."""
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[2:4, 2:4, 2:4] = 2
    truth[4:6, 2:4, 2:4] = 3
    truth[12:14, 12:14, 12:14] = 2
    truth[16:18, 2:4, 2:4] = 9
    found = np.zeros_like(truth)
    found[2:6, 2:4, 2:4] = found[16:18, 2:4, 2:4] = 5
    for folder, array in (("r", truth), ("p", found)):
        (tmp_path / folder).mkdir()
        image = nibabel.Nifti1Image(array, np.diag([1, 2, 3, 1.0]))
        nibabel.save(image, tmp_path / folder / "a.nii.gz")
    return tmp_path


def test_merged_values_ignored_voxels_and_files(leanseg, folders):
    labels = ("--labels", "lesion=2+3,tumour=2", "--prediction-labels", "lesion=5,tumour=5")
    options = (*labels, "--ignore", 9, "--lesions", "lesion,tumour", "-o", folders / "out")
    outcome = leanseg("evaluate", folders / "p", folders / "r", *options)
    assert outcome.status == 0
    assert "lesion, lesions of the references" in outcome.out
    assert "0 of 1 predicted components overlap no lesion: 0.000 false positives a" in outcome.out
    rows = list(csv.DictReader((folders / "out/lesions.csv").open(newline="")))
    assert [(r["case"], r["label"], r["lesion"], r["found"]) for r in rows] == [
        ("a", "lesion", "1", "True"),
        ("a", "lesion", "2", "False"),
        ("a", "tumour", "1", "True"),
        ("a", "tumour", "2", "False"),
    ]
    assert [float(row["volume_ml"]) for row in rows] == pytest.approx([0.096, *[0.048] * 3])
    assert [float(row["dice"]) for row in rows] == pytest.approx([1, 0, 2 / 3, 0])
    content = json.loads((folders / "out/scores.json").read_text())
    assert content["lesion_summary"]["lesion"]["sensitivity"] == 0.5
    again = read_scores(folders / "out/scores.json")
    assert again.lesions[0].lesions[0].dice == 1
    assert again.lesion_summary == content["lesion_summary"]


def test_without_the_package(leanseg, folders, monkeypatch):
    monkeypatch.setattr("leanseg.errors.find_spec", lambda name: None)
    options = ("--labels", "tumour=2", "--lesions", "tumour", "-o", folders / "out")
    outcome = leanseg("evaluate", folders / "p", folders / "r", *options)
    assert outcome.status == 2
    assert "install it with: pip install 'leanseg[lesions]'" in outcome.err
    assert not (folders / "out").exists()
