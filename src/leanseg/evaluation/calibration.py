"""Whether probabilities mean what they say: reliability, its mean error, and the temperature.

A probability of 0.8 is calibrated if four of five such voxels have the label. The temperature that
mends it divides a network's logits (Guo et al., "On Calibration of Modern Neural Networks", 2017);
it changes neither which label is the likeliest nor the order of probabilities of one label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

N_BINS: Final = 20
# Around the label and what was predicted; beyond lies background of which nobody is in doubt.
MARGIN_MM: Final = 10.0
TEMPERATURES: Final = (0.05, 20.0)
ECE_DEFINITION: Final = (
    f"foreground calibration error of a label: voxels in the box around the reference and the "
    f"prediction, widened by {MARGIN_MM:g} mm to every side, of all cases together, in {N_BINS} "
    "bins of equal width by the label's probability; the absolute difference of a bin's mean "
    "probability and its share of voxels that have the label, averaged over bins in proportion to "
    "their voxels"
)
_TINY: Final = np.float32(1e-30)
_LEAST: Final = 1e-7


def scaled(
    probabilities: NDArray[np.float32], temperature: float, *, sigmoid: bool
) -> NDArray[np.float32]:
    """Probabilities whose logits are divided by a temperature.

    Args:
        probabilities: (..., output).
        temperature: Above 1 they become less extreme.
        sigmoid: Whether each output has a probability of its own; else they sum to 1.

    Example:
        >>> scaled(np.float32([0.2, 0.8]), 2.0, sigmoid=False).round(3).tolist()
        [0.3330000042915344, 0.6669999957084656]
    """
    power = np.float32(1 / temperature)
    if sigmoid:
        others = 1 - probabilities
        highest = np.maximum(probabilities, others)
        own = (probabilities / highest) ** power
        return np.asarray(own / (own + (others / highest) ** power), dtype=np.float32)
    highest = np.maximum(probabilities.max(axis=-1, keepdims=True), _TINY)
    own = (probabilities / highest) ** power
    total = np.maximum(own.sum(axis=-1, keepdims=True), _TINY)
    return np.asarray(own / total, dtype=np.float32)


def scaled_threshold(threshold: float, temperature: float) -> float:
    """The threshold of scaled probabilities that separates what another separates before.

    Example:
        >>> scaled_threshold(0.2, 2.0).__round__(4), scaled_threshold(0.5, 2.0)
        (0.3333, 0.5)
    """
    return float(scaled(np.array([threshold], dtype=np.float32), temperature, sigmoid=True)[0])


def fit_temperature(
    probabilities: NDArray[np.float32], truth: NDArray[Any], *, sigmoid: bool
) -> float:
    """The temperature under which the reference is likeliest (least cross entropy).

    Args:
        probabilities: (voxel, output).
        truth: Of outputs that sum to 1 the right one's number (voxel,); else for each output
            whether it is right (voxel, output).
        sigmoid: Whether each output has a probability of its own.

    Returns:
        Within `TEMPERATURES`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = np.log(np.clip(probabilities, _LEAST, 1))
    if sigmoid:
        # Positive where the network is right.
        logits -= np.log(np.clip(1 - probabilities, _LEAST, 1))
        logits = np.where(truth, logits, -logits)

        def loss(log_temperature: float) -> float:
            return float(np.logaddexp(0, -logits / np.exp(log_temperature)).mean())

    else:
        right = np.take_along_axis(logits, np.asarray(truth, dtype=np.intp)[:, None], axis=1)
        logits -= right

        def loss(log_temperature: float) -> float:
            return float(logsumexp(logits / np.exp(log_temperature), axis=1).mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Voxels in bins of a label's probability; those of several cases add up.

    Attributes:
        n: Voxels of each bin.
        probability: Their sum of probabilities.
        positive: How many have the label.
    """

    n: NDArray[np.int64]
    probability: NDArray[np.float64]
    positive: NDArray[np.int64]

    @classmethod
    def of(
        cls, probability: NDArray[np.floating[Any]], truth: NDArray[np.bool_], n_bins: int = N_BINS
    ) -> Reliability:
        """From probabilities and references of the same shape."""
        flat = probability.ravel().astype(np.float64)
        bins = np.minimum((flat * n_bins).astype(np.intp), n_bins - 1)
        return cls(
            np.bincount(bins, minlength=n_bins).astype(np.int64),
            np.bincount(bins, weights=flat, minlength=n_bins).astype(np.float64),
            np.bincount(bins[truth.ravel()], minlength=n_bins).astype(np.int64),
        )

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.n + other.n,
            self.probability + other.probability,
            self.positive + other.positive,
        )

    @property
    def error(self) -> float | None:
        """The calibration error (`ECE_DEFINITION`); None without voxels."""
        total = int(self.n.sum())
        return float(np.abs(self.probability - self.positive).sum() / total) if total else None

    def points(self) -> list[tuple[float, float, int]]:
        """Of bins with voxels: mean probability, share of voxels with the label, number."""
        found = self.n > 0
        n = self.n[found]
        means, shares = self.probability[found] / n, self.positive[found] / n
        return list(zip(means.tolist(), shares.tolist(), n.tolist(), strict=True))
