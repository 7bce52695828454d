"""Statistics of paired values, against scipy, statsmodels, textbook formulas and simulations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.evaluation.paired import (
    false_win,
    holm,
    mean_intervals,
    mean_ranks,
    paired_tests,
    resample,
    worst_tenth,
)

FIRST = np.array([0.80, 0.70, 0.90, 0.60, 0.85])
SECOND = np.array([0.85, 0.72, 0.89, 0.70, 0.88])


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(3)
    first = rng.uniform(0.5, 0.9, 25)
    return first, first + rng.normal(0.02, 0.05, 25)


def test_by_hand():
    found = paired_tests(FIRST, SECOND)
    # Differences 0.05, 0.02, -0.01, 0.10, 0.03.
    assert found.mean_difference == pytest.approx(0.038)
    sd = np.sqrt((0.012**2 + 0.018**2 + 0.048**2 + 0.062**2 + 0.008**2) / 4)
    assert found.sd_difference == pytest.approx(sd)
    assert found.cohens_d_z == pytest.approx(0.038 / sd)
    # Ranks by size: 0.01 is 1, and 2 + 3 + 4 + 5 are positive.
    assert found.rank_biserial == pytest.approx((14 - 1) / 15)
    # Of 32 equally likely signs, 1 is more extreme and 1 as extreme, on either side.
    assert found.wilcoxon_p == pytest.approx(4 / 32)
    assert found.sd_ratio == pytest.approx(np.std(SECOND) / np.std(FIRST))


def test_against_scipy_and_statsmodels(pair):
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    first, second = pair
    found = paired_tests(first, second, margin=0.03)
    assert found.t_p == pytest.approx(scipy.stats.ttest_rel(second, first).pvalue)
    assert found.wilcoxon_p == pytest.approx(scipy.stats.wilcoxon(second, first).pvalue)
    assert found.congruence == pytest.approx(np.corrcoef(first, second)[0, 1])
    expected = weightstats.ttost_paired(second, first, -0.03, 0.03)[0]
    assert found.equivalence_p == pytest.approx(expected)
    sides = [
        scipy.stats.ttest_1samp(second - first, bound, alternative=side).pvalue
        for bound, side in ((-0.03, "greater"), (0.03, "less"))
    ]
    assert found.equivalence_p == pytest.approx(max(sides))
    interval = scipy.stats.bootstrap(
        (first, second),
        lambda a, b, axis: (b - a).mean(axis),
        paired=True,
        vectorized=True,
        random_state=5,
    ).confidence_interval
    assert found.interval == pytest.approx(tuple(interval), abs=1.5e-3)


def test_pitman_morgan_by_its_published_formula(pair):
    """Morgan (1939): t = (F - 1) sqrt(n - 2) / (2 sqrt(F (1 - r^2))), F the ratio of variances."""
    first, second = pair
    ratio = second.var(ddof=1) / first.var(ddof=1)
    r = np.corrcoef(first, second)[0, 1]
    t = (ratio - 1) * np.sqrt(len(first) - 2) / (2 * np.sqrt(ratio * (1 - r**2)))
    expected = 2 * scipy.stats.t.sf(abs(t), len(first) - 2)
    assert paired_tests(first, second).pitman_morgan_p == pytest.approx(expected)


def test_the_false_win_is_the_published_posterior(pair):
    """With the methods' own means, SDs and correlation, as arXiv:2505.04720 writes it."""
    first, second = pair
    n, (s1, s2) = len(first), (each.std(ddof=1) for each in pair)
    spread = np.sqrt(s1**2 + s2**2 - 2 * s1 * s2 * np.corrcoef(first, second)[0, 1])
    expected = scipy.stats.t.cdf(np.sqrt(n) * (first.mean() - second.mean()) / spread, n - 1)
    assert paired_tests(first, second).false_win == pytest.approx(expected)
    # And the posterior, drawn: sigma^2 by its inverse chi-square, mu by its normal.
    rng = np.random.default_rng(0)
    d = second - first
    sigma = np.sqrt((n - 1) * d.var(ddof=1) / rng.chisquare(n - 1, 200_000))
    drawn = rng.normal(d.mean(), sigma / np.sqrt(n))
    assert false_win(d.mean(), d.std(ddof=1), n) == pytest.approx((drawn <= 0).mean(), abs=0.003)


def test_no_difference_and_the_same_difference():
    same = paired_tests(FIRST, FIRST.copy())
    assert (same.wilcoxon_p, same.t_p, same.false_win, same.rank_biserial) == (1, 1, 0.5, 0)
    assert same.interval == (0, 0)
    assert same.cohens_d_z is None
    assert same.pitman_morgan_p is None
    shifted = paired_tests(FIRST, FIRST + 0.1)
    assert (shifted.t_p, shifted.false_win, shifted.rank_biserial) == (0, 0, 1)
    assert shifted.interval == pytest.approx((0.1, 0.1))
    constant = paired_tests(np.ones(4), np.ones(4) * 0.5)
    assert constant.congruence is None and constant.sd_ratio is None


@pytest.mark.parametrize(("margin", "p"), [(0.05, 1), (0.2, 0)])
def test_equivalence_of_the_same_difference(margin, p):
    pytest.importorskip("statsmodels")
    assert paired_tests(FIRST, FIRST + 0.1, margin).equivalence_p == p


def test_holm():
    pytest.importorskip("statsmodels")
    # Smallest times 3, next times 2, and never less than one before.
    found = holm([0.04, None, 0.01, 0.03])
    assert found[1] is None
    assert [found[n] for n in (0, 2, 3)] == pytest.approx([0.06, 0.03, 0.06])
    assert holm([None]) == [None]


def test_worst_tenth_and_ranks():
    values = np.array([np.arange(20), np.arange(20)[::-1], np.full(20, 9.5)], dtype=float)
    assert worst_tenth(values).tolist() == [0.5, 0.5, 9.5]
    assert worst_tenth(values[:, :9]).tolist() == [0, 11, 9.5]
    goodness = np.array([[3, 1, 2.0], [2, 1, 3.0], [1, 0, 3.0]])
    # Case by case 1, 2, 3; then 1.5, 1.5, 3; then 3, 1.5, 1.5.
    assert mean_ranks(goodness).tolist() == pytest.approx([5.5 / 3, 5 / 3, 7.5 / 3])


def test_stability_of_ranks():
    rng = np.random.default_rng(1)
    base = rng.normal(size=40)
    found = resample(np.array([base, base + 1, base + 1]))
    assert found.first_share == pytest.approx([0, 0.5, 0.5])
    # Of two cases with differences 3 and -1 a mean is above 0 unless the second is drawn twice.
    share = resample(np.array([[0.0, 0.0], [3.0, -1.0]])).first_share
    assert share == pytest.approx([0.25, 0.75], abs=0.015)


def test_intervals_cover_the_truth():
    """Somewhat less than 95 % with 40 cases, as bootstraps of means do."""
    differences = np.random.default_rng(7).normal(0.3, 1, (1000, 40))
    low, high = mean_intervals(differences, n_resamples=599)
    assert 0.92 <= ((low <= 0.3) & (high >= 0.3)).mean() <= 0.965


def test_false_wins_where_nothing_differs():
    """One claim made beforehand errs in 5 %; the winner chosen afterwards in 10 %."""
    rng = np.random.default_rng(11)
    d = rng.normal(0, 1, (4000, 20))
    means, sds = d.mean(1), d.std(1, ddof=1)
    p = np.array([false_win(mean, sd, 20) for mean, sd in zip(means[:2000], sds, strict=False)])
    claimed = p <= 0.05
    assert (claimed & (means[:2000] > 0)).mean() == pytest.approx(0.05, abs=0.012)
    assert claimed.mean() == pytest.approx(0.10, abs=0.02)
    # Which is why `compare` also asks for the two-sided test.
    assert (2 * p <= 0.05).mean() == pytest.approx(0.05, abs=0.012)


def test_false_wins_among_four_methods_that_are_alike():
    """Holm calls something better where the smallest p of six pairs is at most 5 % / 6."""
    values = np.random.default_rng(12).normal(0, 1, (4, 2000, 20))
    a, b = np.triu_indices(4, 1)
    smallest = scipy.stats.ttest_rel(values[a], values[b], axis=-1).pvalue.min(0)
    assert (smallest / 2 <= 0.05).mean() > 0.3
    assert (smallest * 6 <= 0.05).mean() < 0.06


dice = st.floats(0, 1, allow_subnormal=False)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(dice, dice), min_size=3, max_size=9), st.randoms(use_true_random=False))
def test_neither_the_order_of_cases_nor_of_methods_matters(values, random):
    first, second = np.array(values).T
    found, reverse = paired_tests(first, second), paired_tests(second, first)
    random.shuffle(values)
    shuffled = paired_tests(*np.array(values).T)
    for name in ("wilcoxon_p", "t_p", "false_win", "sd_difference"):
        assert getattr(shuffled, name) == pytest.approx(getattr(found, name), abs=1e-6)
        assert getattr(reverse, name) == pytest.approx(getattr(found, name), abs=1e-6)
    for name in ("mean_difference", "rank_biserial"):
        assert getattr(reverse, name) == pytest.approx(-getattr(found, name), abs=1e-6)
