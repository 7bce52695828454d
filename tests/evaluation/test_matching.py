from __future__ import annotations

import json

import pytest

from leanseg.errors import DatasetError
from leanseg.evaluation import match_cases
from leanseg.evaluation.matching import labels_of, recorded_labels


def save(path):
    """Matching looks at names only; nothing is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def folders(tmp_path):
    for name in "bac":
        save(tmp_path / "predictions" / f"{name}.nii.gz")
        save(tmp_path / "references" / f"{name}.nii")
    return tmp_path / "predictions", tmp_path / "references"


def test_two_files_match_whatever_their_names(tmp_path):
    save(tmp_path / "ours.nii.gz")
    save(tmp_path / "truth.nii.gz")
    matched = match_cases(tmp_path / "ours.nii.gz", tmp_path / "truth.nii.gz")
    assert [pair.name for pair in matched.pairs] == ["truth"]


def test_a_file_matches_its_name_in_a_folder(folders):
    predictions, references = folders
    matched = match_cases(predictions, references / "b.nii")
    assert [pair.name for pair in matched.pairs] == ["b"]
    assert matched.unmatched_predictions == ("a", "c")
    alone = match_cases(predictions / "b.nii.gz", references)
    assert [pair.name for pair in alone.pairs] == ["b"]
    assert alone.unmatched_predictions == ()


def test_hidden_and_other_files_are_not_cases(folders):
    predictions, references = folders
    (references / "._a.nii").write_bytes(b"mac")
    (references / "notes.txt").write_text("x")
    (references / "sub.nii").mkdir()
    assert [pair.name for pair in match_cases(predictions, references).pairs] == ["a", "b", "c"]


def test_a_missing_prediction_is_an_error_that_names_three(folders):
    predictions, references = folders
    for name in ("d", "e", "f", "g"):
        save(references / f"{name}.nii")
    with pytest.raises(DatasetError, match=r"no prediction for d, e, f and 1 more"):
        match_cases(predictions, references)


def test_paths_that_do_not_serve(folders, tmp_path):
    predictions, references = folders
    with pytest.raises(DatasetError, match="absent does not exist"):
        match_cases(tmp_path / "absent", references)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty holds no label maps"):
        match_cases(predictions, tmp_path / "empty")
    save(tmp_path / "other" / "z.nii")
    with pytest.raises(DatasetError, match=r"such as z and a\)"):
        match_cases(tmp_path / "other", references)
    save(references / "a.nii.gz")
    with pytest.raises(DatasetError, match="both label maps called 'a'"):
        match_cases(predictions, references)


def test_missing_predictions_that_are_allowed(folders):
    predictions, references = folders
    (predictions / "b.nii.gz").unlink()
    pairs = match_cases(predictions, references, allow_missing=True).pairs
    assert [(pair.name, pair.prediction is None) for pair in pairs] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ('{"background": 0, "liver": 2, "left kidney": 1}', {"kidney_left": 1, "liver": 2}),
        ('{"0": "background", "1": "liver"}', {"liver": 1}),
        # Regions of nnU-Net: the kidney is whatever has one of its values.
        (
            '{"background": 0, "kidney left": [1, 2], "liver": 3}',
            {"kidney_left": (1, 2), "liver": 3},
        ),
        ('{"background": 0, "liver": [4]}', {"liver": (4,)}),
        ('{"background": 0, "spleen": 1}', None),
    ],
)
def test_labels_that_a_tool_lists_beside_its_predictions(tmp_path, listed, expected):
    (tmp_path / "dataset.json").write_text(f'{{"labels": {listed}}}')
    assert recorded_labels(tmp_path, ["kidney_left", "liver"]) == expected


@pytest.mark.parametrize("text", ["no", "{}", '{"labels": {"liver": "x"}}', '{"labels": [1]}'])
def test_a_damaged_list_beside_predictions(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        recorded_labels(tmp_path, ["liver"])


def test_labels_that_leanseg_recorded(tmp_path):
    stage = {"labels": ["tumour", "kidney", "liver"], "inside": {"tumour": "kidney"}}
    cases = {"a": {"plan": {"stages": [stage]}, "labels": None}}
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({"cases": cases}))
    assert labels_of(tmp_path) == {"tumour": 1, "kidney": 2, "liver": 3}
    whole = {"tumour": (1,), "kidney": (2, 1), "liver": (3,)}
    assert labels_of(tmp_path / "a.nii.gz", whole_regions=True) == whole
    cases["a"]["labels"] = ["liver"]
    path.write_text(json.dumps({"cases": cases}))
    assert labels_of(tmp_path) == {"liver": 3}
    # Which of two models made a label map is not known.
    path.write_text(json.dumps({"cases": {**cases, "b": {"plan": {"stages": [stage]}}}}))
    assert labels_of(tmp_path) == {}
