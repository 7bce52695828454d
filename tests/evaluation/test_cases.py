from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from leanseg.datasets import Case
from leanseg.errors import DatasetError, GeometryError, LeansegError
from leanseg.evaluation import (
    CasePair,
    EvaluationSettings,
    evaluate,
    evaluate_cases,
    evaluate_masks,
    match_cases,
)
from leanseg.volumes import read_volume
from plans import slices

AFFINE = np.array([[-0.8, 0, 0, 90], [0, -0.9, 0, 80], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def label_maps(seed):
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((12, 14, 10)), 2) for _ in range(2)]
    mixed = (fields[0], 0.8 * fields[0] + 0.4 * fields[1])
    return [np.digitize(field, [0.02, 0.06]).astype(np.uint8) for field in mixed]


@pytest.fixture
def folders(tmp_path):
    for name, seed in (("b", 1), ("a", 2), ("c", 3)):
        prediction, reference = label_maps(seed)
        save(tmp_path / "predictions" / f"{name}.nii.gz", prediction)
        save(tmp_path / "references" / f"{name}.nii", reference)
    return tmp_path / "predictions", tmp_path / "references"


def test_folders_give_the_scores_of_the_masks(folders):
    scores = evaluate(*folders, {"organ": 1, "tumour": 2})
    assert [(s.case, s.label) for s in scores.cases] == [
        (case, label) for case in "abc" for label in ("organ", "tumour")
    ]
    expected = evaluate_masks(*label_maps(1), (0.8, 0.9, 2.5), {"organ": 1, "tumour": 2})
    for actual, score in zip(scores.cases[2:4], expected, strict=True):
        assert actual.metrics == pytest.approx(score.metrics)


def test_settings_and_prediction_labels_are_recorded(folders):
    scores = evaluate(
        *folders,
        {"organ": 1},
        prediction_labels={"organ": [1, 2]},
        settings=EvaluationSettings(surface_tolerance_mm=2.0, empty="perfect"),
    )
    assert scores.settings == {
        "surface_tolerance_mm": 2.0,
        "empty": "perfect",
        "one_empty_distance": "undefined",
        "scan_border": "surface",
        "prediction_labels": {"organ": [1, 2]},
    }


def test_workers_do_not_change_the_scores(folders):
    done = []
    alone = evaluate(*folders)
    together = evaluate_cases(match_cases(*folders).pairs, n_workers=2, on_case=done.append)
    assert together == alone
    assert done == ["a", "b", "c"]


def test_errors_come_back_from_workers(folders):
    predictions, references = folders
    save(predictions / "b.nii.gz", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(GeometryError, match=r"different shapes, \(12, 14, 10\) and \(3, 3, 3\)"):
        evaluate(predictions, references, {"organ": 1}, n_workers=2)


def test_labels_are_the_values_of_the_references(folders):
    _, references = folders
    save(references / "a.nii", label_maps(2)[1] // 2 * 7)
    assert evaluate(*folders).labels == {
        "label_1": (1,),
        "label_2": (2,),
        "label_7": (7,),
    }


def test_references_without_any_label(tmp_path):
    for folder in ("p", "r"):
        save(tmp_path / folder / "a.nii", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(LeansegError, match="hold only background"):
        evaluate(tmp_path / "p", tmp_path / "r")


def test_a_missing_prediction_can_count_as_empty(folders):
    predictions, references = folders
    (predictions / "b.nii.gz").unlink()
    scores = evaluate(predictions, references, {"organ": 1}, allow_missing=True)
    score = scores.cases[1]
    assert score.case == "b"
    assert score.metrics["dice"] == 0
    assert score.note == "no prediction file, scored as empty; prediction empty"
    assert scores.summary["organ"]["dice"]["n"] == 3


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SLA", "AIL"])
def test_voxels_stored_along_other_axes_are_compared_in_the_world(tmp_path, codes):
    prediction, reference = label_maps(4)
    save(tmp_path / "r" / "a.nii", reference)
    image = nibabel.Nifti1Image(prediction, AFFINE)
    target = nibabel.orientations.axcodes2ornt(codes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(AFFINE), target)
    (tmp_path / "p").mkdir()
    nibabel.save(image.as_reoriented(turn), tmp_path / "p" / "a.nii")
    scores = evaluate(tmp_path / "p", tmp_path / "r", {"organ": 1})
    (expected,) = evaluate_masks(prediction, reference, (0.8, 0.9, 2.5), {"organ": 1})
    assert scores.cases[0].metrics == pytest.approx(expected.metrics)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (
            label_maps(1)[0],
            AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 2.5]),
            r"b\.nii and .*b\.nii\.gz lie on different grids.* 2\.5 mm apart",
        ),
        (label_maps(1)[0], AFFINE @ np.diag([1, 1, 1.28, 1]), "different grids"),
        (
            (label_maps(1)[0] * 0.37).astype(np.float32),
            AFFINE,
            r"b\.nii\.gz: label 0\.(37|74) is not a whole number",
        ),
        (
            np.zeros((12, 14, 10, 2), np.uint8),
            AFFINE,
            r"b\.nii\.gz: a label map has one value per voxel, found shape",
        ),
    ],
    ids=["shifted", "other spacing", "probabilities", "several channels"],
)
def test_predictions_that_cannot_be_scored(folders, array, affine, message):
    predictions, references = folders
    save(predictions / "b.nii.gz", array, affine)
    with pytest.raises(LeansegError, match=message):
        evaluate(predictions, references, {"organ": 1})


def test_affines_that_differ_by_rounding_are_one(folders):
    predictions, references = folders
    rounded = AFFINE + 1e-5
    rounded[3] = AFFINE[3]
    save(predictions / "b.nii.gz", label_maps(1)[0], rounded)
    assert evaluate(predictions, references, {"organ": 1}).cases[1].metrics["dice"] > 0


def test_an_oblique_grid_on_the_verge_of_another_orientation(tmp_path):
    # At 45 degrees rounding decides which orientation each file has; the grid is one all the same.
    prediction, reference = label_maps(4)
    for name, degrees, array in (("p", 44.99999, prediction), ("r", 45.00001, reference)):
        turn = np.radians(degrees)
        affine = np.eye(4)
        affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        save(tmp_path / name / "a.nii", array, affine)
    scores = evaluate(tmp_path / "p", tmp_path / "r", {"organ": 1})
    (expected,) = evaluate_masks(prediction, reference, (1, 1, 1), {"organ": 1})
    assert scores.cases[0].metrics == pytest.approx(expected.metrics, rel=1e-5)


def test_a_truncated_file(folders):
    predictions, references = folders
    path = predictions / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LeansegError, match=r"b\.nii\.gz"):
        evaluate(predictions, references, {"organ": 1})


def test_cases_that_do_not_serve(folders):
    predictions, references = folders
    pair = CasePair("a", predictions / "a.nii.gz", references / "a.nii")
    with pytest.raises(DatasetError, match="no cases"):
        evaluate_cases([], {"organ": 1})
    with pytest.raises(LeansegError, match="workers is -1"):
        evaluate_cases([pair, pair], {"organ": 1}, n_workers=-1)


def test_files_volumes_and_arrays_score_alike(tmp_path):
    prediction, reference = label_maps(4)
    for name, array in (("p", prediction), ("r", reference)):
        save(tmp_path / f"{name}.nii.gz", array)
    files = tmp_path / "p.nii.gz", tmp_path / "r.nii.gz"
    volumes = [read_volume(file) for file in files]
    labels = {"organ": 1, "tumour": 2}
    expected = evaluate(*files, labels)
    (by_masks,) = evaluate_masks(prediction, reference, (0.8, 0.9, 2.5), {"tumour": 2})
    assert expected["tumour"].dice == by_masks.metrics["dice"]
    assert expected["tumour"].hausdorff_mm == by_masks.metrics["hausdorff_mm"]
    for given in (
        evaluate(*volumes, labels),
        evaluate(volumes[0], str(files[1]), labels),
        evaluate(prediction, volumes[1], labels),
        evaluate(files[0], reference, labels),
        evaluate(prediction, reference, labels, affine=AFFINE),
        evaluate(volumes[0], Case(files[1], files[1], name="r"), labels),
    ):
        for found, wanted in zip(given.cases, expected.cases, strict=True):
            assert found.metrics == pytest.approx(wanted.metrics, rel=1e-5)
    with pytest.raises(GeometryError, match="need an affine"):
        evaluate(prediction, reference, labels)


def test_a_case_that_does_not_annotate_a_label(tmp_path):
    save(tmp_path / "r.nii.gz", label_maps(4)[1])
    case = Case(tmp_path / "r.nii.gz", tmp_path / "r.nii.gz", name="r", annotated={"organ"})
    scores = evaluate(tmp_path / "r.nii.gz", case, {"organ": 1, "tumour": 2})
    assert [score.label for score in scores.cases] == ["organ"]
    assert scores["organ"].dice == 1 and scores["tumour"].dice is None


@pytest.mark.shared_data
def test_chaos_figures(shared_data):
    """The CHAOS challenge's own figures of a real submission, in the digits that it gives.

    They hold with an open scan border: the liver leaves this scan, and the challenge counts no
    cut face as surface. Counted as surface, both masks share it, and the average falls to
    0.713 mm.
    """
    folder = shared_data / "abdomen_chaos03"
    pair = CasePair("3", folder / "liver_sample_seg.nii.gz", folder / "liver_gt.nii.gz")
    opened = evaluate_cases(
        [pair], {"liver": 1}, settings=EvaluationSettings(scan_border="open")
    ).cases[0]
    assert opened.metrics["dice"] == pytest.approx(0.978, abs=0.0005)
    assert abs(opened.metrics["relative_volume_difference_percent"]) == pytest.approx(
        0.66, abs=0.005
    )
    assert opened.metrics["assd_mm"] == pytest.approx(0.734, abs=0.0005)
    assert opened.metrics["hausdorff_mm"] == pytest.approx(14, abs=1e-6)
    closed = evaluate_cases([pair], {"liver": 1}).cases[0]
    assert closed.metrics["assd_mm"] == pytest.approx(0.713, abs=0.0005)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A Decathlon dataset of two cases: liver = 5, tumour = 9."""
    root = tmp_path / "data"
    entries = []
    for number, name in enumerate(("a", "b")):
        label = np.zeros((6, 6, 4), np.uint8)
        label[1 : 4 + number, 2:5, 1:3] = 5
        label[2, 3, 1:3] = 9
        for kind, array in (("imagesTr", label.astype(np.int16)), ("labelsTr", label)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), root / kind / f"{name}.nii.gz")
        entries.append({"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"})
    listing = {
        "labels": {"0": "background", "5": "liver", "9": "tumour"},
        "modality": {"0": "CT"},
        "training": entries,
    }
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


def predictions_for(listed: Path, folder: Path, values: dict[int, int]) -> Path:
    folder.mkdir()
    for file in (listed / "labelsTr").iterdir():
        loaded = nibabel.load(file)
        table = np.zeros(10, np.uint8)
        table[list(values)] = list(values.values())
        array = table[np.asarray(loaded.dataobj)]
        nibabel.save(nibabel.Nifti1Image(array, loaded.affine), folder / file.name)
    return folder


def test_a_dataset_brings_its_cases_and_labels(listed, tmp_path):
    folder = predictions_for(listed, tmp_path / "out", {5: 5, 9: 5})
    scores = evaluate(folder, listed)
    assert scores.labels == {"liver": (5,), "tumour": (9,)}
    assert [(s.case, s.label) for s in scores.cases] == [
        ("a", "liver"),
        ("a", "tumour"),
        ("b", "liver"),
        ("b", "tumour"),
    ]
    # 18 - 2 voxels of liver, all 18 predicted.
    assert scores.cases[0].metrics["dice"] == pytest.approx(2 * 16 / (16 + 18))
    assert scores.cases[1].metrics["dice"] == 0


def write_record(folder: Path, *labels: str) -> None:
    """What `leanseg predict` writes beside label maps of two cases."""
    plan = slices((8, 8), labels).model_dump(mode="json")
    record = {"cases": {name: {"plan": plan} for name in "ab"}}
    (folder / "predictions.json").write_text(json.dumps(record))


def test_the_record_beside_predictions_tells_their_labels(listed, tmp_path):
    folder = predictions_for(listed, tmp_path / "out", {5: 2, 9: 1})
    write_record(folder, "Tumour", "LIVER")
    scores = evaluate(folder, listed)
    assert [score.metrics["dice"] for score in scores.cases] == [1, 1, 1, 1]
    # A model of other labels is scored on those that both have.
    write_record(folder, "tumour", "spleen")
    assert list(evaluate(folder, listed).labels) == ["tumour"]
    # Labels that are given go before it.
    given = evaluate(folder, listed, {"liver": 5}, prediction_labels={"liver": 2})
    assert [score.metrics["dice"] for score in given.cases] == [1, 1]


def test_the_record_numbers_labels_that_are_given_for_references(listed, tmp_path):
    folder = predictions_for(listed, tmp_path / "out", {5: 2, 9: 1})
    write_record(folder, "Tumour", "LIVER")
    truth = listed / "labelsTr"
    scores = evaluate(folder, truth, {"liver": 5, "tumour": 9, "spleen": 3, "ignore": 200})
    assert scores.labels == {"liver": (5,), "tumour": (9,)}
    assert scores.settings["ignored_values"] == [200]
    assert [score.metrics["dice"] for score in scores.cases] == [1, 1, 1, 1]
    # A record of other names is none of these labels'.
    assert evaluate(folder, truth, {"a": 5, "b": 9}).settings.get("prediction_labels") is None


def test_labels_that_share_values_are_whole_regions_of_the_record(listed, tmp_path):
    folder = predictions_for(listed, tmp_path / "out", {5: 2, 9: 1})
    plan = slices((8, 8), ("tumour", "liver"), inside={"tumour": "liver"})
    record = {"cases": {"a": {"plan": plan.model_dump(mode="json")}}}
    (folder / "predictions.json").write_text(json.dumps(record))
    scores = evaluate(folder, listed / "labelsTr", {"liver": [5, 9], "tumour": 9})
    assert scores.settings["prediction_labels"] == {"liver": [1, 2], "tumour": [1]}
    assert [score.metrics["dice"] for score in scores.cases] == [1, 1, 1, 1]


def test_unannotated_labels_are_not_scored(listed, tmp_path):
    folder = predictions_for(listed, tmp_path / "out", {5: 5, 9: 9})
    pairs = [
        CasePair("a", folder / "a.nii.gz", listed / "labelsTr/a.nii.gz", frozenset({5})),
        CasePair("b", folder / "b.nii.gz", listed / "labelsTr/b.nii.gz"),
    ]
    scores = evaluate_cases(pairs, {"liver": 5, "tumour": 9, "both": [5, 9]})
    assert [(s.case, s.label) for s in scores.cases] == [
        ("a", "liver"),
        ("b", "liver"),
        ("b", "tumour"),
        ("b", "both"),
    ]
    assert scores.summary["tumour"]["dice"]["n"] == 1


@pytest.fixture
def ignoring(listed):
    """The same dataset, in which each case ignores one slice: value 12, called IGNORE."""
    listing = listed / "dataset.json"
    content = json.loads(listing.read_text())
    content["labels"]["12"] = "IGNORE"
    listing.write_text(json.dumps(content))
    for file in (listed / "labelsTr").iterdir():
        array = np.asarray(nibabel.load(file).dataobj).copy()
        array[:, :, 2] = 12
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), file)
    return listed


def whole_liver(folder):
    """Predicts both cases' boxes of 3 x 3 x 2 and 4 x 3 x 2 voxels as liver."""
    for number, name in enumerate(("a", "b")):
        array = np.zeros((6, 6, 4), np.uint8)
        array[1 : 4 + number, 2:5, 1:3] = 5
        save(folder / f"{name}.nii.gz", array, np.eye(4))
    return folder


def test_a_dataset_says_what_is_ignored(ignoring, tmp_path):
    folder = whole_liver(tmp_path / "out")
    scores = evaluate(folder, ignoring)
    assert scores.labels == {"liver": (5,), "tumour": (9,)}
    assert scores.settings["ignored_values"] == [12]
    # In the slice that is left there are 9 voxels, one of them tumour; in case b 12.
    assert [score.metrics["dice"] for score in scores.cases] == [
        pytest.approx(2 * 8 / (8 + 9)),
        0,
        pytest.approx(2 * 11 / (11 + 12)),
        0,
    ]
    assert scores.cases[0].metrics["prediction_ml"] == pytest.approx(0.009)
    assert scores.cases[0].metrics["specificity"] == pytest.approx(1 - 1 / (3 * 36 - 8))
    # A model's record leaves it known.
    record = {
        "cases": {
            name: {"plan": {"stages": [{"labels": ["?", "?2", "x", "y", "liver"]}]}}
            for name in "ab"
        }
    }
    (folder / "predictions.json").write_text(json.dumps(record))
    assert evaluate(folder, ignoring).cases == scores.cases[::2]
    # A label that is made of it is scored.
    assert "ignored_values" not in evaluate(folder, ignoring, {"liver": [5, 12]}).settings


def test_ignored_values_are_given_for_files_and_arrays(ignoring, tmp_path):
    folder = whole_liver(tmp_path / "out")
    expected = evaluate(folder, ignoring).cases
    references = ignoring / "labelsTr"
    labels = {"liver": 5, "tumour": 9}
    assert evaluate(folder, references, labels, ignored_values=[12]).cases == expected
    assert evaluate(folder, references, {**labels, "ignore": 12}).cases == expected
    named = {**labels, "ignore": 12}
    assert evaluate(folder, references, named, prediction_labels=named).cases == expected
    found = evaluate(folder, references, ignored_values=[12])
    assert found.labels == {"label_5": (5,), "label_9": (9,)}
    assert [score.metrics for score in found.cases] == [score.metrics for score in expected]
    case = Case(references / "a.nii.gz", references / "a.nii.gz", "a")
    assert evaluate(folder / "a.nii.gz", case, labels, ignored_values=[12]).cases == expected[:2]
    with pytest.raises(LeansegError, match="value 5 is ignored and also belongs"):
        evaluate(folder, references, labels, ignored_values=[5])
    with pytest.raises(LeansegError, match="no labels to score"):
        evaluate(folder, references, {"ignore": 12})
