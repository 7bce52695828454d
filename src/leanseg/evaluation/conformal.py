"""An expected Dice with an interval that holds for few cases as well: split conformal prediction.

A line says what Dice goes with what is seen of a result. Its errors on other cases, which it was
not fitted to, say how far it is off: of n such cases and a new one of the same kind each is as
likely to have the largest error, so that the k-th smallest of n errors is not exceeded with
probability k / (n + 1) at least (Vovk et al., "Algorithmic Learning in a Random World", 2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.9
# Fewer results tell nothing of a line.
LEAST_FOR_LINE: Final = 4
# Where all but perfect results are expected, errors are small; so far they are in proportion.
_FLOOR: Final = 0.05


def error_scale(expected: float) -> float:
    """What an error is a multiple of: the further a Dice is expected from 1, the larger it is."""
    return 1 - min(max(expected, 0.0), 1.0) + _FLOOR


def fit_line(features: NDArray[np.float64], dice: NDArray[np.float64]) -> tuple[float, ...]:
    """Intercept and slopes, least squares; Dice rises with confidence and falls with distance.

    Args:
        features: (result, 2): confidence, distance.
        dice: (result,).

    Returns:
        Of fewer than `LEAST_FOR_LINE` results: 0, 1, 0, the confidence as it is.
    """
    from scipy.optimize import lsq_linear

    if len(dice) < LEAST_FOR_LINE:
        return 0.0, 1.0, 0.0
    matrix = np.column_stack([np.ones(len(dice)), features])
    bounds = [-np.inf, 0, -np.inf], [np.inf, np.inf, 0]
    return tuple(float(value) for value in lsq_linear(matrix, dice, bounds).x)


def conformal_quantile(errors: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """What an error exceeds with a probability of at most 1 - level.

    Args:
        errors: Of cases that the line was not fitted to.
        level: The coverage that is wanted.

    Returns:
        The quantile, and the coverage that it warrants, k / (n + 1): at least the level where
        there are enough cases, else that of the largest error.

    Example:
        >>> conformal_quantile([0.3, 0.1, 0.2], level=0.5)
        (0.2, 0.5)
        >>> conformal_quantile([0.3, 0.1, 0.2], level=0.9)
        (0.3, 0.75)
    """
    n = len(errors)
    # Not 10 of 10 x 0.9 = 9.000000000000002.
    k = min(n, math.ceil((n + 1) * level - 1e-9))
    return sorted(errors)[k - 1], k / (n + 1)


def held_out_coverage(errors: Sequence[float], level: float = LEVEL) -> tuple[int, int]:
    """How many errors lie within the quantile of all the others, and of how many."""
    if len(errors) < 2:
        return 0, 0
    within = [
        error <= conformal_quantile([*errors[:n], *errors[n + 1 :]], level)[0]
        for n, error in enumerate(errors)
    ]
    return sum(within), len(within)


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share that was seen k times in n; 0 to 1 of none.

    Example:
        >>> [round(end, 3) for end in clopper_pearson(9, 10)]
        [0.555, 0.997]
    """
    from scipy.stats import binomtest

    if not n:
        return 0.0, 1.0
    found = binomtest(k, n).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)
