"""`leanseg compare`: what it takes, prints, writes and refuses."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from leanseg.evaluation import COMPARISON_DEFINITIONS, read_scores

pytest.importorskip("statsmodels", reason="needs leanseg[statistics]")

CASES = tuple(f"case_{n}" for n in range(8))


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), np.diag([1.0, 2.0, 3.0, 1])), path)


@pytest.fixture
def folder(tmp_path):
    """References with liver 1 and tumour 2; ours misses a slice, and theirs has other values."""
    for n, case in enumerate(CASES):
        truth = np.zeros((12, 12, 6 + n % 3))
        truth[2 : 9 - n % 2, 2:8, 1:5] = 1
        truth[4:7, 4:7, 2:4] = 2
        ours, theirs = truth.copy(), truth.copy()
        ours[2:4, :, 1 + n % 2] = 0
        theirs[2 : 4 + n % 3, :, 1:4] = 0
        save(tmp_path / "truth" / f"{case}.nii.gz", truth)
        save(tmp_path / "ours" / f"{case}.nii.gz", ours)
        save(tmp_path / "theirs" / f"{case}.nii.gz", np.array([0, 5, 3])[theirs.astype(int)])
    listing = {"labels": {"background": 0, "Tumour": 3, "liver": 5}, "file_ending": ".nii.gz"}
    (tmp_path / "theirs/dataset.json").write_text(json.dumps(listing))
    return tmp_path


LABELS = ("--labels", "liver=1,tumour=2")


def test_predictions_of_two_tools(leanseg, folder):
    given = (folder / "ours", folder / "theirs", "--references", folder / "truth", *LABELS)
    outcome = leanseg("compare", *given, "--margin", 0.2, "-o", folder / "out")
    assert outcome.status == 0, outcome
    assert "theirs: liver=5, tumour=3" in outcome.err
    assert "liver: dice, 8 cases" in outcome.out
    line = next(line for line in outcome.out.splitlines() if line.startswith("theirs - ours"))
    assert "ours better" in line
    content = json.loads((folder / "out/compare.json").read_text())
    assert set(COMPARISON_DEFINITIONS) < set(content["definitions"])
    liver = content["groups"][0]
    # The same as what `leanseg evaluate` says of each alone.
    for name, values in (("ours", LABELS[1]), ("theirs", "liver=5,tumour=3")):
        alone = ("--prediction-labels", values, "-o", folder / "scores" / name)
        leanseg("evaluate", folder / name, folder / "truth", *LABELS, *alone)
        summary = read_scores(folder / "scores" / name / "scores.json").summary["liver"]["dice"]
        found = next(each for each in liver["methods"] if each["name"] == name)
        for key in ("mean", "sd", "median"):
            assert found[key] == pytest.approx(summary[key])
    rows = list(csv.DictReader((folder / "out/compare.csv").open(newline="")))
    assert [(r["label"], r["first"], r["second"], r["n"]) for r in rows] == [
        ("liver", "ours", "theirs", "8"),
        ("tumour", "ours", "theirs", "8"),
    ]
    assert float(rows[0]["interval_high"]) < 0
    assert rows[0]["better"] == "ours"
    # Score files and folders that hold one are the same methods.
    scores = (folder / "scores/ours/scores.json", folder / "scores/theirs", "--margin", 0.2)
    outcome = leanseg("compare", *scores, "-o", folder / "again")
    again = json.loads((folder / "again/compare.json").read_text())
    assert again["groups"] == content["groups"]


def test_what_not_all_have_is_named(leanseg, folder):
    (folder / "ours/case_3.nii.gz").unlink()
    save(folder / "ours/extra.nii.gz", np.zeros((3, 3, 3)))
    (folder / "theirs/dataset.json").write_text('{"labels": {"1": "spleen", "5": "liver"}}')
    given = (folder / "ours", folder / "theirs", "--references", folder / "truth", *LABELS)
    outcome = leanseg("compare", *given)
    assert outcome.status == 0, outcome
    assert "left out: cases that ours lacks: case_3" in outcome.out
    assert "left out: labels of ours that others lack: tumour" in outcome.out
    assert "liver: dice, 7 cases" in outcome.out


@pytest.mark.parametrize(
    ("strata", "names"),
    [
        ("slices", ["6 slices", "7 slices", "8 slices"]),
        ("thickness", ["3 mm"]),
        ("size", ["10-20 mm"]),
    ],
)
def test_strata_of_references(leanseg, folder, strata, names):
    given = (folder / "ours", folder / "theirs", "--references", folder / "truth", *LABELS)
    outcome = leanseg("compare", *given, "--strata", strata, "-o", folder / "out")
    assert outcome.status == 0, outcome
    groups = json.loads((folder / "out/compare.json").read_text())["groups"]
    assert [g["stratum"] for g in groups if g["label"] == "liver"] == [None, *names]
    assert f"liver, {names[0]}: dice" in outcome.out


@pytest.fixture
def score_files(leanseg, folder):
    for name, values in (("ours", LABELS[1]), ("theirs", "liver=5,tumour=3")):
        options = (*LABELS, "--prediction-labels", values, "-o", folder / "scores" / name)
        leanseg("evaluate", folder / name, folder / "truth", *options)
    return [folder / "scores" / name / "scores.json" for name in ("ours", "theirs")]


def test_refusals_of_inputs(leanseg, folder, score_files):
    ours = score_files[0]
    refused = {
        (ours, ours): ["given twice"],
        (ours, folder / "absent"): ["absent", "no such file"],
        (ours, folder / "theirs"): ["--references"],
        (ours, folder / "theirs", "--references", folder / "nothing"): ["nothing does not exist"],
        (*score_files, "--metric", "dise"): ["'dise' is not known"],
        (*score_files, "--metric", "reference_ml"): ["describes a mask"],
        (*score_files, "--margin", "-1"): ["the margin is -1.0"],
        (*score_files, "--margin", "1", "--metric", "dice,assd_mm"): ["dice, assd_mm", "one --met"],
        (*score_files, "--strata", "age"): ["'age'"],
        (*score_files, "--strata", "slices"): ["--references"],
        (*score_files, "-o", ours): ["is a file"],
    }
    for arguments, parts in refused.items():
        leanseg("compare", *arguments).assert_refused(*parts)


def test_refusals_of_scores(leanseg, folder, score_files):
    first, second = map(read_scores, score_files)

    def compared(scores, *options):
        path = folder / "changed" / "scores.json"
        path.parent.mkdir(exist_ok=True)
        scores.to_json(path)
        return leanseg("compare", score_files[0], path, *options)

    def with_cases(change):
        return replace(second, cases=tuple(change(score) for score in second.cases))

    other_cases = with_cases(lambda score: replace(score, case=f"other {score.case}"))
    compared(other_cases).assert_refused("no case is common to ours and changed")
    other_labels = replace(
        with_cases(lambda score: replace(score, label=f"left {score.label}")),
        labels={f"left {name}": values for name, values in second.labels.items()},
    )
    compared(other_labels).assert_refused("no label is common", "left liver")
    larger = with_cases(
        lambda s: replace(s, metrics={**s.metrics, "reference_ml": s.metrics["reference_ml"] * 1.1})
    )
    compared(larger).assert_refused("the references of 'liver' differ", "case_0")
    wider = replace(second, settings={**second.settings, "surface_tolerance_mm": 2})
    assert compared(wider).status == 0
    compared(wider, "--metric", "surface_dice").assert_refused("surface_tolerance_mm 1.0")
    compared(replace(second, cases=())).assert_refused("changed has no scores")
    undefined = with_cases(lambda s: replace(s, metrics={**s.metrics, "dice": None}))
    compared(undefined).assert_refused("undefined for changed", "case_0")
    # All alike: nothing is told apart, and nothing fails.
    outcome = compared(first, "--margin", 0.01)
    assert outcome.status == 0
    assert "equivalent within 0.01" in outcome.out
    assert "better" not in outcome.out.split("A method is called")[0]


def test_one_case_has_values_and_no_tests(leanseg, folder, score_files):
    first, second = map(read_scores, score_files)
    one = replace(second, cases=tuple(s for s in second.cases if s.case == "case_0"))
    one.to_json(folder / "one.json")
    metrics = ("--metric", "dice, assd_mm", "--metric", "relative_volume_difference_percent")
    page = folder / "page.html"
    given = (score_files[0], folder / "one.json", *metrics, "-o", folder / "out", "--report", page)
    outcome = leanseg("compare", *given)
    assert outcome.status == 0, outcome
    assert "no method is called better" in outcome.out
    assert "bootstrap" not in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    for metric in ("dice", "assd_mm", "relative_volume_difference_percent"):
        # Of volume differences the size counts.
        values = [
            abs(next(s.metrics[metric] for s in each.of_label("liver") if s.case == "case_0"))
            for each in (first, second)
        ]
        found = next(line[3:] for line in lines if line[:3] == ["liver", "case_0", metric])
        assert list(map(float, found)) == pytest.approx([*values, values[1] - values[0]], abs=1e-3)
        content = json.loads((folder / f"out/compare-{metric}.json").read_text())
        liver = content["groups"][0]
        pair, methods = liver["pairs"][0], liver["methods"]
        assert pair["mean_difference"] == pytest.approx(values[1] - values[0])
        untested = ("interval", "t_p", "wilcoxon_p_holm", "false_win", "sd_ratio", "better")
        assert {pair[name] for name in untested} == {None}
        assert {each[name] for each in methods for name in ("sd", "first_share")} == {None}
        row = next(csv.DictReader((folder / f"out/compare-{metric}.csv").open(newline="")))
        assert row["interval_low"] == row["t_p"] == ""
    assert "one case, not tested" in page.read_text()


def test_a_method_alone(leanseg, folder):
    page = folder / "page.html"
    given = (folder / "ours", "--references", folder / "truth", *LABELS, "--report", page)
    outcome = leanseg("compare", *given, "-o", folder / "out")
    assert outcome.status == 0, outcome
    assert "liver: dice, 8 cases" in outcome.out
    assert "P(false win)" not in outcome.out
    rows = list(csv.DictReader((folder / "out/compare.csv").open(newline="")))
    assert [(row["label"], row["n"], row["first"]) for row in rows] == [
        ("liver", "8", "ours"),
        ("tumour", "8", "ours"),
    ]
    assert 0 < float(rows[0]["first_mean"]) < 1
    assert 'id="tests"' not in page.read_text()


def test_organs_by_name_across_two_numberings(leanseg, tmp_path):
    """As TotalSegmentator's maps: names in the header, of all organs that it knows."""
    truth = np.zeros((10, 10, 8))
    truth[1:5, 1:5, 1:7], truth[6:9, 6:9, 2:6] = 1, 2
    found = truth.copy()
    found[1, :, :] = 0
    old = {"spleen": 1, "pancreas": 2, "aorta": 3}
    # Here the pancreas is 7, and 2 is something else; the aorta is nowhere.
    new = {"spleen": 1, "kidney_right": 2, "pancreas": 7, "Aorta": 52}
    write_labelled(tmp_path / "full.nii.gz", truth, old)
    write_labelled(tmp_path / "fast.nii.gz", np.array([0, 1, 7])[found.astype(int)], new)
    given = (tmp_path / "fast.nii.gz", "--references", tmp_path / "full.nii.gz")
    outcome = leanseg("compare", *given)
    assert outcome.status == 0, outcome
    assert "fast.nii.gz: spleen=1, pancreas=7, aorta=52" in outcome.err
    assert "left out: labels without dice in any common case: aorta" in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    of_organ = {line[0]: line[-1] for line in lines if line[1:2] == ["full"]}
    dice = 2 * 3 * 4 * 6 / (3 * 4 * 6 + 4 * 4 * 6)
    assert of_organ == {"spleen": f"{dice:.4f}", "pancreas": "1.0000"}
    # Fewer slices: no grid is guessed.
    write_labelled(tmp_path / "cut.nii.gz", found[..., :6], new)
    outcome = leanseg("compare", tmp_path / "cut.nii.gz", *given[1:])
    assert outcome.status == 2
    assert "(10, 10, 8) and (10, 10, 6)" in outcome.err
    assert "leanseg.resample" in outcome.err
    assert outcome.out == ""


def write_labelled(path, array, names):
    """With a label table, as Caret and Connectome Workbench write one."""
    labels = "".join(
        f'<Label Key="{value}" Red="0"><![CDATA[{name}]]></Label>'
        for name, value in {"???": 0, **names}.items()
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><CaretExtension><VolumeInformation Index="0">'
        f"<LabelTable>{labels}</LabelTable></VolumeInformation></CaretExtension>"
    )
    image = nibabel.Nifti1Image(array.astype(np.uint8), np.diag([3.0, 3.0, 3.0, 1]))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, text.encode()))
    nibabel.save(image, path)


@pytest.mark.shared_data
def test_the_figures_of_a_challenge(leanseg, shared_data, tmp_path):
    """CHAOS's own of its sample submission: Dice 0.978, RAVD 0.66 %, ASSD 0.734 mm, MSSD 14 mm."""
    submission, truth = (
        shared_data / "abdomen_chaos03" / name
        for name in ("liver_sample_seg.nii.gz", "liver_gt.nii.gz")
    )
    options = ("--labels", "liver=1", "--scan-border", "open", "-o", tmp_path / "scores")
    leanseg("evaluate", submission, truth, *options)
    metrics = "dice,relative_volume_difference_percent,assd_mm,hausdorff_mm"
    outcome = leanseg("compare", tmp_path / "scores", "--metric", metrics)
    found = [line.split()[-1] for line in outcome.out.splitlines() if line.startswith("liver")]
    assert [float(value) for value in found] == pytest.approx([0.978, 0.66, 0.734, 14], rel=0.01)


@pytest.mark.shared_data
def test_a_fast_map_against_a_full_one(leanseg, shared_data, tmp_path):
    """TotalSegmentator's second version, with names in its header, against its first, without."""
    folder = shared_data / "totalsegmentator_peer"
    fast = folder / "example_seg_fast_force_split.nii.gz"
    full = folder / "example_seg_v1_full_104labels.nii.gz"
    names = "liver=5,pancreas=10,aorta=7,vertebrae_L3=20,urinary_bladder=104"
    given = (fast, "--references", full, "--labels", names)
    outcome = leanseg("compare", *given)
    assert "pancreas=7, aorta=52, vertebrae_L3=29, urinary_bladder=21" in outcome.err
    lines = [line.split() for line in outcome.out.splitlines()]
    dice = {line[0]: float(line[-1]) for line in lines if "dice" in line[1:]}
    assert set(dice) == {each.split("=")[0] for each in names.split(",")}
    assert min(dice.values()) > 0.8


def test_without_the_package(leanseg, score_files, monkeypatch):
    monkeypatch.setattr("leanseg.errors.find_spec", lambda name: None)
    leanseg("compare", *score_files).assert_refused("pip install 'leanseg[statistics]'")
