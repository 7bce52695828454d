"""Summaries and slopes of Dice under change, against numpy, scipy and hand."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy import stats

from leanseg.evaluation.changes import choose_factors
from leanseg.evaluation.robustness import (
    UNCHANGED,
    LevelScore,
    Robustness,
    within_case_slope,
)


def test_slope_is_polyfits_on_demeaned_data(rng):
    x = [rng.normal(size=n) for n in (3, 5, 4, 1)]
    y = [rng.normal() - 0.3 * each + rng.normal(0, 0.1, len(each)) for each in x]
    found = within_case_slope(x, y)
    flat = [np.concatenate([each - each.mean() for each in of]) for of in (x, y)]
    assert found.slope == pytest.approx(np.polyfit(*flat, 1)[0])
    # One value says nothing of a slope.
    assert found.n == 3


def test_interval_is_students_of_the_slopes_of_cases(rng):
    x = np.array([0.0, 1, 2, 5])
    y = [rng.normal() + rng.normal(-0.1, 0.05) * x + rng.normal(0, 0.02, 4) for _ in range(6)]
    found = within_case_slope([x] * 6, y)
    slopes = [np.polyfit(x, each, 1)[0] for each in y]
    wanted = stats.ttest_1samp(slopes, 0).confidence_interval()
    assert found.slope == pytest.approx(np.mean(slopes))
    assert found.interval == pytest.approx((wanted.low, wanted.high))


def test_slopes_of_too_little():
    one = np.array([0.0, 1])
    assert within_case_slope([one], [one]).interval is None
    assert within_case_slope([one[:1]], [one[:1]]) is None
    assert within_case_slope([], []) is None


LEVELS = {"-50 HU": -50, "-20 HU": -20, "20 HU": 20, "50 HU": 50, UNCHANGED: 0}


def made(by_case):
    """Of Dice by case, then by the levels of the offset."""
    scores = [
        LevelScore(case, "offset", level, LEVELS[level], {"organ": value})
        for case, of_case in by_case.items()
        for level, value in of_case.items()
    ]
    factors = choose_factors(["offset"], hounsfield=True)
    return Robustness(("organ",), factors, tuple(scores), "data", "ab" * 32, 0)


@pytest.fixture
def found():
    return made(
        {
            "a": {UNCHANGED: 0.9, "-50 HU": 0.4, "-20 HU": 0.7, "20 HU": 0.9, "50 HU": 0.9},
            "b": {UNCHANGED: 0.7, "-50 HU": 0.2, "-20 HU": 0.5, "20 HU": 0.6, "50 HU": None},
        }
    )


def test_summary_by_hand(found):
    of_organ = found.summary["offset"]["organ"]
    assert of_organ["levels"]["20 HU"] == pytest.approx(
        {
            "n": 2,
            "mean": 0.75,
            "sd": 0.3 / np.sqrt(2),
            "worst_tenth": 0.6,
            "n_pairs": 2,
            "difference": -0.05,
            "difference_sd": 0.1 / np.sqrt(2),
        }
    )
    last = of_organ["levels"]["50 HU"]
    assert (last["n"], last["mean"], last["sd"], last["n_pairs"]) == (1, 0.9, None, 1)
    below, above = (of_organ["slopes"][side] for side in ("below", "above"))
    x = np.array([-50, -20, 0])
    assert below["slope"] == pytest.approx(np.polyfit(x, [0.4, 0.7, 0.9], 1)[0])
    assert below["interval"] == pytest.approx((below["slope"],) * 2)
    assert above["slope"] < 0
    assert above["n"] == 2


def test_files(found, tmp_path):
    found.to_json(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["summary"]["offset"]["organ"]["levels"]["20 HU"]["n"] == 2
    assert content["factors"]["offset"]["unit"] == "HU"
    found.to_csv(tmp_path / "r.csv")
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    row = next(row for row in rows if (row["case"], row["level"]) == ("b", "20 HU"))
    assert float(row["difference"]) == pytest.approx(-0.1)
    assert rows[-1]["dice"] == ""


def test_what_a_model_keeps(found):
    record = found.record
    assert record.dice == pytest.approx({"organ": 0.8})
    assert record.differences == {
        "offset": {"organ": {"-50 HU": -0.5, "-20 HU": -0.2, "20 HU": -0.05, "50 HU": 0.0}}
    }
    assert (record.n_cases, record.data_name) == (2, "data")


def test_no_case_has_the_label():
    nothing = made({"a": dict.fromkeys(LEVELS)})
    of_organ = nothing.summary["offset"]["organ"]
    assert of_organ["levels"][UNCHANGED]["mean"] is None
    assert of_organ["slopes"] == {}
    assert nothing.record.dice == {"organ": None}
