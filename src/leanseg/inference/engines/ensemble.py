"""Several engines as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.engines.base import Engine


class EnsembleEngine:
    """Runs networks of one kind one after another and averages their probabilities.

    Args:
        engines: At least one; the first names the engine and precision.

    Attributes:
        members: The engines; one of them is enough for a first look.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.members = tuple(engines)
        first = self.members[0]
        self.name, self.precision = first.name, first.precision
        self.lanes, self.slices_per_call = first.lanes, first.slices_per_call
        self.passes = sum(engine.passes for engine in self.members)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean probabilities (batch, output, *spatial)."""
        first, *others = self.members
        total = first.run(batch)
        for engine in others:
            total += engine.run(batch)
        total *= np.float32(1 / len(self.members))
        return total
