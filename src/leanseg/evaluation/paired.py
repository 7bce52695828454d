"""Statistics of paired values: of one metric, method by method, over the same cases.

What each number is, in words, is told by `comparison.csv`. Cases are taken as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_RESAMPLES = 9999
_SEED = 0
# Floats of bootstrap samples that are held at a time.
_BLOCK = 4_000_000
# Of what is called equal: rounding leaves differences of this size between equal differences.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What two methods' values give; None where it is undefined.

    One case has a difference alone.
    """

    mean_difference: float
    interval: tuple[float, float] | None = None
    sd_difference: float | None = None
    cohens_d_z: float | None = None
    rank_biserial: float | None = None
    congruence: float | None = None
    wilcoxon_p: float | None = None
    t_p: float | None = None
    equivalence_p: float | None = None
    sd_ratio: float | None = None
    pitman_morgan_p: float | None = None
    false_win: float | None = None


def paired_tests(first: Floats, second: Floats, margin: float | None = None) -> Paired:
    """All tests of one pair.

    Args:
        first: Shape (n,).
        second: The same shape, the same cases.
        margin: Difference below which methods are equivalent; None tests no equivalence.
    """
    from scipy.stats import wilcoxon

    difference = second - first
    difference[np.abs(difference) <= _ROUNDING] = 0
    n, mean = len(difference), float(difference.mean())
    if n == 1:
        return Paired(mean_difference=mean)
    sd = _sd(difference)
    differs = bool(difference.any())
    sds = _sd(first), _sd(second)
    low, high = mean_intervals(difference)
    return Paired(
        mean_difference=mean,
        interval=(float(low), float(high)),
        sd_difference=sd,
        cohens_d_z=mean / sd if sd else None,
        rank_biserial=_rank_biserial(difference),
        congruence=_correlation(first, second)[0],
        wilcoxon_p=float(wilcoxon(difference).pvalue) if differs else 1.0,
        t_p=2 * false_win(mean, sd, n),
        equivalence_p=None if margin is None else _equivalence(first, second, sd, margin),
        sd_ratio=sds[1] / sds[0] if sds[0] else None,
        pitman_morgan_p=_correlation(first + second, difference)[1],
        false_win=false_win(mean, sd, n),
    )


def false_win(mean_difference: float, sd_difference: float, n: int) -> float:
    """Posterior probability that a difference's true sign is not the one of its mean.

    With values that are normal and priors that are flat, the true mean difference is distributed
    as Student's t with n - 1 degrees of freedom around the mean that was found. The SD of the
    differences follows from the methods' own SDs and their correlation r, the "congruence":
    s^2 = s_1^2 + s_2^2 - 2 r s_1 s_2. So computed it is the probability of a false claim for
    segmentation in Christodoulou et al., "False promises in medical imaging AI?", arXiv:2505.04720.

    Example:
        >>> from leanseg.evaluation.paired import false_win
        >>> round(false_win(0.01, 0.05, 20), 3)  # Dice 0.01 better, of 20 cases
        0.191
    """
    from scipy.stats import t

    if not sd_difference:
        return 0.0 if mean_difference else 0.5
    return float(t.cdf(-math.sqrt(n) * abs(mean_difference) / sd_difference, n - 1))


def mean_intervals(differences: Floats, n_resamples: int = N_RESAMPLES) -> Floats:
    """95 % bootstrap intervals (BCa) of means.

    Args:
        differences: Shape (..., n).
        n_resamples: Bootstrap samples.

    Returns:
        Shape (2, ...): their lower and upper ends; the mean itself where all are equal.
    """
    from scipy.stats import bootstrap

    means = differences.mean(-1)
    if differences.ndim == 1 and not _sd(differences):
        return np.array([means, means])
    found = bootstrap(
        (differences,),
        np.mean,
        axis=-1,
        method="BCa",
        n_resamples=n_resamples,
        batch=max(1, _BLOCK // differences.size),
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval
    return np.array([found.low, found.high])


@dataclass(frozen=True)
class Resampled:
    """What bootstrap samples of cases say of several methods.

    Attributes:
        first_share: Shape (methods,): share of the samples in which each has the best mean.
        worst_tenth: Shape (samples, methods): the mean of the worst tenth in each.
    """

    first_share: Floats
    worst_tenth: Floats


def resample(goodness: Floats, n_resamples: int = N_RESAMPLES) -> Resampled:
    """Draw cases again and again, the same ones for all methods.

    Args:
        goodness: Shape (methods, n), higher is better.
        n_resamples: Bootstrap samples.
    """
    n_methods, n = goodness.shape
    generator = np.random.default_rng(_SEED)
    shares, worst = np.zeros(n_methods), []
    step = max(1, _BLOCK // goodness.size)
    for start in range(0, n_resamples, step):
        drawn = generator.integers(n, size=(min(step, n_resamples - start), n))
        samples = np.moveaxis(goodness[:, drawn], 0, 1)
        means = samples.mean(-1)
        # Sums of the same numbers in another order are not always the same.
        best = means >= means.max(-1, keepdims=True) - _ROUNDING
        shares += (best / best.sum(-1, keepdims=True)).sum(0)
        worst.append(worst_tenth(samples))
    return Resampled(shares / n_resamples, np.concatenate(worst))


def worst_tenth(goodness: Floats) -> Floats:
    """Mean of the lowest tenth, n / 10 rounded up, along the last axis."""
    n_worst = -(-goodness.shape[-1] // 10)
    return np.partition(goodness, n_worst - 1, axis=-1)[..., :n_worst].mean(-1)


def mean_ranks(goodness: Floats) -> Floats:
    """Mean rank of each method, 1 the best, of shape (methods,); equal values share ranks."""
    from scipy.stats import rankdata

    # What differs by rounding alone is equal.
    ranks = rankdata(-np.round(goodness, 12), axis=0)
    return np.asarray(ranks.mean(1), dtype=np.float64)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over a family of tests; those that are None are none of it."""
    from statsmodels.stats.multitest import multipletests

    given = [p for p in p_values if p is not None]
    corrected = iter(multipletests(given, method="holm")[1].tolist() if given else ())
    return [None if p is None else next(corrected) for p in p_values]


def _sd(values: Floats) -> float:
    """Standard deviation (n - 1); 0 where rounding alone tells values apart."""
    return 0.0 if np.ptp(values) <= _ROUNDING else float(values.std(ddof=1))


def _correlation(first: Floats, second: Floats) -> tuple[float | None, float | None]:
    """Pearson's correlation and its p-value, the Pitman-Morgan test of sums and differences."""
    from scipy.stats import pearsonr

    if not (_sd(first) and _sd(second)):
        return None, None
    found = pearsonr(first, second)
    return float(found.statistic), float(found.pvalue) if len(first) > 2 else None


def _rank_biserial(difference: Floats) -> float:
    from scipy.stats import rankdata

    moved = difference[difference != 0]
    if not len(moved):
        return 0.0
    ranks = rankdata(np.abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum())


def _equivalence(first: Floats, second: Floats, sd: float, margin: float) -> float:
    from statsmodels.stats.weightstats import ttost_paired

    if not sd:
        return float(abs((second - first).mean()) >= margin)
    return float(ttost_paired(second, first, -margin, margin)[0])
