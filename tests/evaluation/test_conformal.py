"""The interval of an expected Dice: coverage by simulation, and lines against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from leanseg.evaluation.conformal import (
    clopper_pearson,
    conformal_quantile,
    error_scale,
    fit_line,
    held_out_coverage,
)


@pytest.mark.parametrize(
    ("n", "coverage"), [(1, 1 / 2), (5, 5 / 6), (8, 8 / 9), (9, 0.9), (19, 0.9), (30, 28 / 31)]
)
def test_coverage_is_what_is_said(rng, n, coverage) -> None:
    """New cases of the same kind: as often within as said, for skewed errors of any size."""
    rounds = 6000
    within = 0
    for errors in rng.lognormal(0, 1.5, (rounds, n + 1)):
        quantile, said = conformal_quantile(errors[:n].tolist())
        within += errors[n] <= quantile
    assert said == pytest.approx(coverage)
    assert within / rounds == pytest.approx(coverage, abs=4 * np.sqrt(0.25 / rounds))


def test_coverage_of_a_whole_line(rng) -> None:
    """Fitted to some results, with errors that grow where Dice is low: 90 % of new ones."""
    within = []
    for _ in range(400):
        confidence = rng.uniform(0.4, 1, 41)
        dice = np.clip(confidence - 0.1 + rng.normal(0, 0.4, 41) * (1.05 - confidence), 0, 1)
        features = np.column_stack([confidence, np.zeros(41)])
        line = fit_line(features[:21], dice[:21])
        expected = np.clip(line[0] + features @ line[1:], 0, 1)
        errors = [
            abs(d - e) / error_scale(e) for d, e in zip(dice[21:], expected[21:], strict=True)
        ]
        within.append(errors[-1] <= conformal_quantile(errors[:-1])[0])
    # 18 of 20.
    assert np.mean(within) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 400))


def test_lines(rng) -> None:
    features = rng.random((50, 2))
    dice = 0.2 + 0.7 * features[:, 0] - 0.1 * features[:, 1] + rng.normal(0, 0.01, 50)
    own = np.linalg.lstsq(np.column_stack([np.ones(50), features]), dice, rcond=None)[0]
    np.testing.assert_allclose(fit_line(features, dice), own, atol=1e-6)
    # Less confidence is never better, and more distance neither.
    assert fit_line(features, 1 - dice)[1:] == pytest.approx((0, 0), abs=1e-6)
    assert fit_line(features[:3], dice[:3]) == (0, 1, 0)


def test_held_out_coverage_by_hand() -> None:
    # Only the largest of so few lies outside of the others.
    assert held_out_coverage([0.1, 0.3, 0.2]) == (2, 3)
    assert held_out_coverage([0.1]) == (0, 0)


def test_the_interval_of_a_share() -> None:
    expected = beta.ppf(0.025, 17, 4), beta.ppf(0.975, 18, 3)
    assert clopper_pearson(17, 20) == pytest.approx(expected, abs=1e-6)
    assert clopper_pearson(0, 0) == (0, 1)
