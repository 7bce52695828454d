"""What an error budget sums up, says and writes."""

from __future__ import annotations

import csv
import json

import pytest

from leanseg.evaluation.budget import CaseBudget, ErrorBudget
from leanseg.evaluation.lesions import Lesion, LesionScores


def case(
    name="a", found=0.5, true=0.7, shares=(0.5, 1.0), voxels=(30, 10), **options
) -> CaseBudget:
    values = {
        "labelled_slices": 10,
        "missed_slices": 1,
        "found_nothing": False,
        "organ_dice": 0.8,
        "kept": {0: (0.0,) * len(voxels), 20: shares},
        "off_grid": 0,
    }
    return CaseBudget(name, voxels=voxels, dice_found=found, dice_true=true, **values | options)


def budget(*cases, target="lesion") -> ErrorBudget:
    return ErrorBudget("organ", target, 20, cases or (case(),), ("a note",))


EMPTY = {"shares": (), "voxels": (), "found": None, "true": None}


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (
            [case()],
            "Stage 1 loses 37.5 % of the lesion voxels; the true box would change Dice by +0.200, "
            "and 0.300 would be missing even then: improve stage 2 first.",
        ),
        ([case(found=0.5, true=0.76)], ": improve stage 1 first."),
        ([case(found=0.5, true=0.74)], ": improve stage 2 first."),
        (
            [case(found=0.6, true=0.5)],
            "by -0.100, and 0.500 would be missing even then: improve st",
        ),
        ([case(found=0.992, true=0.995)], ": neither needs improving."),
        # A case without a lesion does not count.
        ([case(found=0.5, true=0.76), case("b", **EMPTY)], "+0.260, and 0.240 would"),
        ([case(**EMPTY)], "No case has lesion, so there is nothing to say of either stage."),
        ([case(shares=(), voxels=())], "The frame's grid has no lesion voxel; the true box"),
    ],
)
def test_the_verdict_follows_its_rule(cases, said):
    assert said in budget(*cases).verdict


def test_summary_by_hand():
    second = case("b", 0.2, 0.9, (0.0,), (60,), organ_dice=0.4, found_nothing=True, off_grid=2)
    summary = budget(case(), second, case("c", **EMPTY)).summary
    assert summary["stage_1"] == {
        "cases": 3,
        "found_nothing": ["b"],
        "labelled_slices": 30,
        "missed_slices": 3,
        "organ_dice": {
            "n": 3, "mean": pytest.approx(2 / 3), "worst": 0.4, "worst_case": "b"
        },
    }  # fmt: skip
    assert summary["kept"][20] == {
        "parts": 3, "mean": 0.5, "worst": 0.0, "lost": 1, "of_all_voxels": 0.25
    }  # fmt: skip
    assert summary["off_grid"] == 2
    assert summary["dice"]["gain"]["mean"] == pytest.approx(0.45)
    assert summary["dice"]["dice_found"]["worst_case"] == "b"


def test_files(tmp_path):
    lesion = Lesion(volume_ml=1.0, diameter_mm=12.4, found=True, dice=0.5)
    missed = Lesion(volume_ml=0.5, diameter_mm=9.8, found=False, dice=0.0)
    scores = {
        "lesions_found": LesionScores((lesion, missed), 4, 3),
        "lesions_true": LesionScores((lesion, lesion), 2, 0),
    }
    made = budget(case(**scores), case("b", **EMPTY | scores))
    made.to_json(tmp_path / "budget.json")
    made.to_csv(tmp_path / "budget.csv")
    content = json.loads((tmp_path / "budget.json").read_text())
    assert content["verdict"] == made.verdict
    assert content["summary"]["kept"]["20"]["of_all_voxels"] == 0.625
    assert content["summary"]["lesions"]["found"]["by_diameter_mm"]["10-20"]["n_found"] == 2
    assert content["summary"]["lesions"]["found"]["false_positives_per_scan"] == 3
    assert content["cases"][0]["gain"] == pytest.approx(0.2)
    assert set(content["cases"][0]) <= set(content["definitions"]) | {"case", "voxels"} | set(
        scores
    )
    with (tmp_path / "budget.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {
        "case": "a", "labelled_slices": "10", "missed_slices": "1", "found_nothing": "0",
        "organ_dice": "0.8", "kept_0": "0.0", "kept_20": "0.625", "dice_found": "0.5",
        "dice_true": "0.7", "gain": str(0.7 - 0.5), "lesions": "2", "lesions_found": "1",
        "false_positives_found": "3", "lesions_true": "2", "false_positives_true": "0",
    }  # fmt: skip
    assert second["kept_20"] == second["gain"] == ""
