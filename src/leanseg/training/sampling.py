"""Which slices an epoch sees, derived from (seed, epoch, sample) alone.

No generator lives longer than one sample, so neither the number of workers nor an interruption
changes what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from leanseg.preprocessing import TrainingCase


class Role(IntEnum):
    """What a derived seed is for; keeps the streams of one seed apart."""

    INITIALISATION = 0
    CASE_ORDER = 1
    SLICE = 2
    AUGMENTATION = 3
    DROPOUT = 4
    MEASUREMENT = 5


def derive_seed(seed: int, role: Role, *counters: int) -> int:
    """A 63-bit seed for one purpose at one place, from the run's seed."""
    sequence = np.random.SeedSequence([seed, int(role), *counters])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Sample:
    """One training slice and the seed of its augmentation."""

    case: int
    slice_index: int
    augmentation_seed: int


class SliceSampler:
    """Draws the samples of an epoch.

    Every case is visited equally often; a share of the samples comes from slices with a label,
    the others from all slices that training sees.

    Args:
        cases: The training cases.
        seed: The run's seed.
        foreground_fraction: Share of samples from slices with a label.
    """

    def __init__(
        self, cases: Sequence[TrainingCase], seed: int, foreground_fraction: float
    ) -> None:
        self._seed = seed
        self._fraction = foreground_fraction
        self._n_slices = [len(case.image) for case in cases]
        self._foreground: list[NDArray[np.intp]] = [case.foreground_slices for case in cases]

    @property
    def n_slices(self) -> int:
        """Number of slices of all cases."""
        return sum(self._n_slices)

    def epoch(self, epoch: int, n_samples: int) -> list[Sample]:
        """The samples of an epoch, in order."""
        n_cases = len(self._n_slices)
        rounds = -(-n_samples // n_cases)
        order = np.concatenate(
            [
                np.random.default_rng(
                    derive_seed(self._seed, Role.CASE_ORDER, epoch, number)
                ).permutation(n_cases)
                for number in range(rounds)
            ]
        )
        return [self._sample(epoch, index, int(order[index])) for index in range(n_samples)]

    def _sample(self, epoch: int, index: int, case: int) -> Sample:
        generator = np.random.default_rng(derive_seed(self._seed, Role.SLICE, epoch, index))
        foreground = self._foreground[case]
        if generator.random() < self._fraction and foreground.size:
            chosen = int(generator.choice(foreground))
        else:
            chosen = int(generator.integers(self._n_slices[case]))
        return Sample(case, chosen, derive_seed(self._seed, Role.AUGMENTATION, epoch, index))
