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
        frugal: Let each network give back its working memory before the next one runs: a tenth
            of the time, for networks whose activations take much memory. Only one run at a time.

    Attributes:
        members: The engines; one of them is enough for a first look.
    """

    def __init__(self, engines: Sequence[Engine], *, frugal: bool = False) -> None:
        self._frugal = frugal
        self.members = tuple(engines)
        first = self.members[0]
        self.name, self.precision, self.note = first.name, first.precision, first.note
        self.lanes, self.slices_per_call = first.lanes, first.slices_per_call
        self.passes = sum(engine.passes for engine in self.members)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean probabilities (batch, output, *spatial)."""
        total: NDArray[np.float32] | None = None
        for engine in self.members:
            probabilities = engine.run(batch)
            if self._frugal and hasattr(engine, "release"):
                engine.release()
            if total is None:
                total = probabilities
            else:
                total += probabilities
        assert total is not None
        total *= np.float32(1 / len(self.members))
        return total
