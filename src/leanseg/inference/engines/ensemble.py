"""Several engines as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MemoryCeilingError
from leanseg.inference.engines.base import Engine
from leanseg.runtime import return_freed_memory

# Networks that need more than this are made for their turns.
_MUCH_BYTES = 128_000_000


class EnsembleEngine:
    """Runs networks of one input and output shape one after another; averages probabilities.

    Networks whose activations take much memory, as those of whole volumes do, are made when their
    turn comes and let go after it, for a tenth of the time: what a library keeps of each would
    add up. Only where a single lane makes sure that none is at work meanwhile.

    Args:
        makers: Each makes the engine of one network; at least one. The first names the engine and
            precision.
    """

    def __init__(self, makers: Sequence[Callable[[], Engine]]) -> None:
        self._makers = tuple(makers)
        first = makers[0]()
        self.name, self.precision, self.device = first.name, first.precision, first.device
        self.lanes, self.batch_size, self.shape = first.lanes, first.batch_size, first.shape
        self._one_bytes = _memory_bytes(first)
        self._take_turns = self.lanes == 1 and self._one_bytes > _MUCH_BYTES
        others = [] if self._take_turns else [make() for make in makers[1:]]
        # Of those that take turns, the first alone may be ready before its turn.
        self._ready: dict[int, Engine] = dict(enumerate([first, *others]))
        self.passes = len(self._makers) * first.passes

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean probabilities (batch, output, *spatial)."""
        total: NDArray[np.float32] | None = None
        for number in range(len(self._makers)):
            probabilities = self._member(number).run(batch)
            if self._take_turns:
                del self._ready[number]
                return_freed_memory()
            if total is None:
                total = probabilities
            else:
                total += probabilities
            del probabilities
        assert total is not None
        total *= np.float32(1 / len(self._makers))
        return total

    def _member(self, number: int) -> Engine:
        if number not in self._ready:
            self._ready[number] = self._makers[number]()
        return self._ready[number]

    def memory_bytes(self) -> int:
        """That of one network where they take turns, else of all together."""
        if self._take_turns:
            return self._one_bytes
        return sum(engine.memory_bytes() for engine in self._ready.values())

    def release(self) -> None:
        """Give back the working memory of every network."""
        for engine in self._ready.values():
            engine.release()

    def scout(self) -> Engine:
        """The first network alone."""
        return self._member(0).scout()


def _memory_bytes(engine: Engine) -> int:
    """What the engine tells; 0 where it cannot, which is said when somebody has to know."""
    try:
        return engine.memory_bytes()
    except MemoryCeilingError:
        return 0
