"""What samplers share: samples, and the order in which cases are visited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from leanseg.training.seeds import Role, derive_seed


@dataclass(frozen=True)
class Sample:
    """Where a sample is, and the seed of what happens to it.

    Attributes:
        case: Number of the case.
        start: Where its place begins, in the sampler's own sense.
        seed: Of its augmentation.
    """

    case: int
    start: tuple[int, int, int]
    seed: int


class Sampler(Protocol):
    """Draws where training looks, and reads it.

    A factory takes `cases` (the prepared training cases), `stage` and `seed`, then its own
    options. What it draws depends on the seed and on the numbers of epoch and sample alone.
    """

    @property
    def n_samples(self) -> int:
        """Samples of one pass over all that there is."""

    def epoch(self, epoch: int, n_batches: int, batch_size: int) -> list[list[Sample]]:
        """The batches of an epoch, in order."""

    def read(self, sample: Sample) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Image (channel, *spatial) and classes (*spatial) of a sample."""

    def annotated(self, sample: Sample) -> tuple[bool, ...] | None:
        """For each label whether the sample's case annotates it; None for all."""


@runtime_checkable
class Describes(Protocol):
    """A sampler that changes what it reads, and says in words how."""

    def describe(self, sample: Sample) -> str:
        """How a sample is changed; "" where it is not."""


def generator(seed: int, role: Role, *counters: int) -> np.random.Generator:
    """A generator for one purpose at one place."""
    return np.random.default_rng(derive_seed(seed, role, *counters))


def visits(seed: int, epoch: int, n_cases: int, n_samples: int) -> list[int]:
    """Which case each sample of an epoch is of: all once, in random order, then all again."""
    rounds = range(-(-n_samples // n_cases))
    orders = [generator(seed, Role.CASE_ORDER, epoch, n).permutation(n_cases) for n in rounds]
    return [int(case) for case in np.concatenate(orders)[:n_samples]]


def repeated(
    places: Sequence[tuple[int, tuple[int, int, int]]],
    n_batches: int,
    repeats: int,
    batch_size: int,
    seed: int,
    epoch: int,
) -> list[list[Sample]]:
    """Batches of an epoch, so many after one another at the same places, with seeds of their own.

    Args:
        places: Case and start, `batch_size` for every `repeats` batches.
        n_batches: Of the epoch.
        repeats: Batches at the same places.
        batch_size: Samples of a batch.
        seed: The run's seed.
        epoch: Number of the epoch.
    """
    return [
        [
            Sample(*place, derive_seed(seed, Role.AUGMENTATION, epoch, batch * batch_size + number))
            for number, place in enumerate(
                places[batch // repeats * batch_size : (batch // repeats + 1) * batch_size]
            )
        ]
        for batch in range(n_batches)
    ]


def in_batches(samples: Sequence[Sample], batch_size: int) -> list[list[Sample]]:
    """Samples, so many at a time."""
    starts = range(0, len(samples), batch_size)
    return [list(samples[start : start + batch_size]) for start in starts]
