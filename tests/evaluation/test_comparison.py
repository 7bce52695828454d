"""Two sets of scores against each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from leanseg.errors import LeansegError
from leanseg.evaluation import METRIC_NAMES, LabelScore, Scores, compare


def scores(values, label="liver", cases="abcdefghij"):
    entries = [
        LabelScore(label, {**dict.fromkeys(METRIC_NAMES), "dice": value}, case=case)
        for case, value in zip(cases, values, strict=False)
    ]
    return Scores({label: (1,)}, tuple(entries), {})


def test_paired_by_the_names_of_the_cases():
    rng = np.random.default_rng(0)
    first, second = rng.random(10), rng.random(10)
    found = compare(scores(first), scores(second[::-1], cases="jihgfedcba"))["liver"]
    assert found.n == 10
    assert found.mean_difference == pytest.approx(second.mean() - first.mean())
    assert found.median_difference == pytest.approx(np.median(second - first))
    assert found.p_value == pytest.approx(wilcoxon(first, second).pvalue)


def test_undefined_values_leave_the_pairs():
    found = compare(scores([0.5, None, 0.7]), scores([0.6, 0.9, None]))["liver"]
    assert found.n == 1 and found.mean_difference == pytest.approx(0.1)


def test_no_difference():
    assert compare(scores([0.5, 0.6]), scores([0.5, 0.6]))["liver"].p_value == 1


def test_what_cannot_be_compared():
    assert compare(scores([0.5]), scores([0.5], "spleen")) == {}
    with pytest.raises(LeansegError, match="'dise' is not known"):
        compare(scores([0.5]), scores([0.5]), "dise")
    with pytest.raises(LeansegError, match="no case has dice of 'liver' in both"):
        compare(scores([0.5]), scores([0.5], cases="z"))
