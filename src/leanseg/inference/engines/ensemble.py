"""Several engines as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.engines.base import Engine

# Networks that need more than this give it back between their turns.
_MUCH_BYTES = 128_000_000


class EnsembleEngine:
    """Runs networks of one input and output shape one after another; averages probabilities.

    Networks whose activations take much memory, as those of whole volumes do, give it back before
    the next one runs, for a tenth of the time; only where a single lane makes sure that none is
    at work meanwhile.

    Args:
        engines: At least one; the first names the engine and precision.
        n_outputs: Output channels of each.
    """

    def __init__(self, engines: Sequence[Engine], n_outputs: int) -> None:
        self._members = tuple(engines)
        first = self._members[0]
        self.name, self.precision, self.device = first.name, first.precision, first.device
        self.lanes, self.batch_size, self.shape = first.lanes, first.batch_size, first.shape
        self.passes = sum(engine.passes for engine in self._members)
        batch, _, *spatial = self.shape
        # The sum so far, beside the result of the network at work.
        self._sum_bytes = 4 * self.lanes * batch * n_outputs * math.prod(spatial)
        may_take_turns = self.lanes == 1 and first.memory_bytes() > _MUCH_BYTES
        self._take_turns = may_take_turns and all(each.release() for each in self._members)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean probabilities (batch, output, *spatial)."""
        total: NDArray[np.float32] | None = None
        for engine in self._members:
            probabilities = engine.run(batch)
            if self._take_turns:
                engine.release()
            if total is None:
                total = probabilities
            else:
                total += probabilities
        assert total is not None
        total *= np.float32(1 / len(self._members))
        return total

    def memory_bytes(self) -> int:
        """That of the largest network where they take turns, else of all together; and the sum."""
        needs = [engine.memory_bytes() for engine in self._members]
        return self._sum_bytes + (max(needs) if self._take_turns else sum(needs))

    def release(self) -> bool:
        """Give back the working memory of every network."""
        released = [engine.release() for engine in self._members]
        return all(released)

    def scout(self) -> Engine:
        """The first network alone."""
        return self._members[0].scout()
