from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from leanseg.errors import FileFormatError, LeansegError
from leanseg.evaluation import (
    DEFINITIONS,
    METRIC_NAMES,
    EvaluationSettings,
    LabelScore,
    Scores,
    evaluate_masks,
    read_scores,
)
from leanseg.evaluation.lesions import LESION_DEFINITIONS
from leanseg.evaluation.metrics import POOLED, TOTALS
from leanseg.evaluation.overlap import Counts


def entry(case, label="liver", note=None, **metrics):
    return LabelScore(label, dict.fromkeys(METRIC_NAMES) | metrics, note, case)


@pytest.fixture
def scores():
    return Scores(
        labels={"liver": (1,), "tumour": (2, 3)},
        cases=(
            entry("x", dice=0.9, hausdorff_mm=4.0, volume_difference_ml=-9.0, reference_ml=100.0),
            entry("x", "tumour", "both empty"),
            entry("y", dice=0.5, hausdorff_mm=12.5, volume_difference_ml=6.0, reference_ml=90.0),
            entry("y", "tumour", dice=0.25, hausdorff_mm=1 / 3),
            entry("z", dice=0.7, volume_difference_ml=0.0, note='a "quoted", note'),
            entry("z", "tumour", "both empty"),
        ),
        settings={"surface_tolerance_mm": 1.0, "empty": "undefined"},
    )


def test_summary_by_hand(scores):
    dice = scores.summary["liver"]["dice"]
    assert dice["mean"] == pytest.approx(0.7)
    assert dice["sd"] == pytest.approx(np.std([0.9, 0.5, 0.7], ddof=1))
    assert dice["median"] == pytest.approx(0.7)
    assert (dice["worst"], dice["worst_case"]) == (0.5, "y")
    assert (dice["n"], dice["n_undefined"]) == (3, 0)


def test_worst_depends_on_the_metric(scores):
    liver = scores.summary["liver"]
    assert (liver["hausdorff_mm"]["worst"], liver["hausdorff_mm"]["worst_case"]) == (12.5, "y")
    difference = liver["volume_difference_ml"]
    assert (difference["worst"], difference["worst_case"]) == (-9.0, "x")
    assert liver["reference_ml"]["worst"] is liver["reference_ml"]["worst_case"] is None
    assert liver["reference_ml"]["mean"] == pytest.approx(95)


def test_undefined_values_are_counted_and_left_out(scores):
    tumour = scores.summary["tumour"]["dice"]
    assert tumour["mean"] == tumour["median"] == tumour["worst"] == 0.25
    assert tumour["sd"] is None
    assert (tumour["n"], tumour["n_undefined"]) == (1, 2)
    nothing = scores.summary["tumour"]["assd_mm"]
    assert nothing == {
        "mean": None,
        "sd": None,
        "median": None,
        "worst": None,
        "worst_case": None,
        "n": 0,
        "n_undefined": 3,
    }


def test_json_round_trip(scores, tmp_path):
    path = tmp_path / "scores.json"
    scores.to_json(path)
    again = read_scores(path)
    assert again == scores
    assert again.summary == scores.summary


def test_json_layout(scores, tmp_path):
    scores.to_json(tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert (content["format"], content["version"]) == ("leanseg-scores", 2)
    assert content["labels"] == {"liver": [1], "tumour": [2, 3]}
    assert content["definitions"] == DEFINITIONS | TOTALS | POOLED | LESION_DEFINITIONS
    lesions = set(LESION_DEFINITIONS)
    totals = {"dice_micro", "dice_macro"}
    assert set(content["definitions"]) == {*METRIC_NAMES, *POOLED, *totals, *lesions}
    assert set(content["pooled"]["liver"]) == set(POOLED)
    assert set(content["total"]) == {"dice_micro", "dice_macro"}
    assert content["total"]["dice_macro"].keys() == content["summary"]["liver"]["dice"].keys()
    assert content["settings"]["surface_tolerance_mm"] == 1.0
    assert content["cases"][1]["note"] == "both empty"
    assert content["cases"][1]["metrics"]["dice"] is None
    assert content["summary"]["liver"]["dice"]["n"] == 3


def test_csv(scores, tmp_path):
    scores.to_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "label", *METRIC_NAMES, "note"]
    assert len(rows) == 6
    assert rows[1]["dice"] == ""
    assert float(rows[3]["hausdorff_mm"]) == 1 / 3
    assert rows[4]["note"] == 'a "quoted", note'


def test_writes_are_whole_or_absent(scores, tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    path.write_text("older")

    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scores.to_json(path)
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]
    assert path.read_text() == "older"


def test_a_folder_that_does_not_exist(scores, tmp_path):
    with pytest.raises(LeansegError, match="cannot be written"):
        scores.to_csv(tmp_path / "absent" / "scores.csv")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace("leanseg-scores", "other"),
        lambda text: text.replace('"version": 2', '"version": 3'),
        lambda text: text.replace('"assd_mm": null', '"asd": null'),
        lambda text: text.replace('"cases"', '"rows"'),
    ],
)
def test_damaged_files(scores, tmp_path, change):
    path = tmp_path / "scores.json"
    scores.to_json(path)
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(FileFormatError, match=r"scores\.json: .*; write it again"):
        read_scores(path)


def test_a_label_by_its_name(scores):
    assert scores["liver"].dice == pytest.approx(0.7)
    assert scores["tumour"].assd_mm is None
    assert "dice=0.25" in repr(scores["tumour"])
    with pytest.raises(AttributeError, match="'dise'"):
        _ = scores["liver"].dise


def test_missing_file(tmp_path):
    with pytest.raises(FileFormatError, match=r"cannot be read \(No such file.*; write it again"):
        read_scores(tmp_path / "scores.json")


@pytest.mark.parametrize("empty", ["undefined", "perfect"])
def test_the_total_of_all_labels(rng, empty):
    """Micro: counts of all labels added up; macro: the mean of their Dice. Case by case."""
    labels = {"kidney": 1, "tumour": 2, "cyst": 3}
    rows, micro, macro = [], [], []
    for number in range(3):
        reference = rng.integers(0, 3, (6, 7, 8)).astype(np.uint8)
        noise = rng.integers(0, 3, reference.shape).astype(np.uint8)
        found = np.where(rng.random(reference.shape) < 0.2 * number, noise, reference)
        settings = EvaluationSettings(empty=empty)
        scored = evaluate_masks(found, reference, (1, 1, 2), labels, settings=settings)
        rows += [replace(score, case=str(number)) for score in scored]
        both = [((found == n) & (reference == n)).sum() for n in (1, 2)]
        sizes = [(found == n).sum() + (reference == n).sum() for n in (1, 2)]
        micro.append(2 * sum(both) / sum(sizes))
        each = [2 * b / n for b, n in zip(both, sizes, strict=True)]
        # The cyst is nowhere.
        macro.append(np.mean([*each, 1.0] if empty == "perfect" else each))
    scores = Scores({name: (n,) for name, n in labels.items()}, tuple(rows), {})
    for name, expected in (("dice_micro", micro), ("dice_macro", macro)):
        assert scores.total[name]["mean"] == pytest.approx(np.mean(expected))
        assert scores.total[name]["sd"] == pytest.approx(np.std(expected, ddof=1))
        assert scores.total[name]["worst_case"] == "2"


def test_a_total_of_nothing_is_undefined():
    empty = np.zeros((3, 3, 3), np.uint8)
    rows = [replace(s, case="a") for s in evaluate_masks(empty, empty, (1, 1, 1), {"a": 1, "b": 2})]
    scores = Scores({"a": (1,), "b": (2,)}, tuple(rows), {})
    assert {found["n_undefined"] for found in scores.total.values()} == {1}
    assert {found["mean"] for found in scores.total.values()} == {None}


def test_files_from_before_labelled_slices_are_read(scores, tmp_path):
    path = tmp_path / "scores.json"
    scores.to_json(path)
    content = json.loads(path.read_text())
    del content["total"]
    for case in content["cases"]:
        for name in ("dice", "sensitivity", "specificity"):
            del case["metrics"][f"{name}_labelled_slices"]
        del case["counts"], case["counts_labelled_slices"]
    path.write_text(json.dumps(content))
    again = read_scores(path)
    assert [s.metrics["dice"] for s in again.cases] == [s.metrics["dice"] for s in scores.cases]
    assert {s.metrics["dice_labelled_slices"] for s in again.cases} == {None}
    assert set(again.pooled["liver"].values()) == {None}
    del content["cases"][0]["metrics"]["dice"]
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match="metrics are others"):
        read_scores(path)


def test_pooled_by_hand():
    """Two cases of 100 voxels; paper 003, equations 18 to 20."""
    small, large = Counts(tp=2, fp=2, fn=0, tn=96), Counts(tp=30, fp=0, fn=10, tn=60)
    part = Counts(tp=2, fp=1, fn=0, tn=17)
    rows = (
        replace(entry("a"), counts=small, counts_labelled_slices=part),
        replace(entry("b"), counts=large, counts_labelled_slices=large),
    )
    scores = Scores({"liver": (1,)}, rows, {})
    assert scores.pooled["liver"] == {
        "dice_pooled": 64 / 76,
        "dice_pooled_labelled_slices": 64 / 75,
        "sensitivity_pooled": 32 / 42,
        "sensitivity_pooled_labelled_slices": 32 / 42,
        "specificity_pooled": 156 / 158,
        "specificity_pooled_labelled_slices": 77 / 78,
    }


def test_pooled_equals_the_cases_as_one(rng, tmp_path):
    """Scans on top of each other are one scan; ignored voxels count in neither."""
    labels, voxels = {"organ": (1, 2), "tumour": (2,)}, rng.integers(0, 4, (2, 3, 5, 6, 7))
    voxels[1, :, :, :, [0, 3]] = 0
    pairs = voxels.astype(np.uint8).swapaxes(0, 1)
    options = {"labels": labels, "ignored_values": [3]}
    rows = tuple(
        replace(score, case=str(number))
        for number, pair in enumerate(pairs)
        for score in evaluate_masks(*pair, (1, 1, 1), **options)
    )
    scores = Scores(labels, rows, {})
    for score in evaluate_masks(*np.concatenate(pairs, axis=-1), (1, 1, 1), **options):
        for name, value in scores.pooled[score.label].items():
            assert value == score.metrics[name.replace("_pooled", "")]
    scores.to_json(tmp_path / "scores.json")
    assert read_scores(tmp_path / "scores.json").pooled == scores.pooled


def test_pooled_voxels_by_monai(rng):
    import torch
    from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix

    found, truth = rng.integers(0, 2, (2, 4, 5, 6, 7)).astype(np.uint8)
    rows = [
        replace(evaluate_masks(p, r, (1, 1, 1), {"a": 1})[0], case=str(n))
        for n, (p, r) in enumerate(zip(found, truth, strict=True))
    ]
    pooled = Scores({"a": (1,)}, tuple(rows), {}).pooled["a"]
    together = get_confusion_matrix(*(torch.from_numpy(m)[:, None] for m in (found, truth))).sum(0)
    for name, theirs in (("dice", "f1 score"), ("sensitivity",) * 2, ("specificity",) * 2):
        expected = float(compute_confusion_matrix_metric(theirs, together))
        assert pooled[f"{name}_pooled"] == pytest.approx(expected, rel=1e-6)
