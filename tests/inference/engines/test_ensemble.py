"""Several networks as one engine: the mean of probabilities, the memory of one or of all."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import numpy as np
import pytest

from leanseg.inference.engines.ensemble import EnsembleEngine


@pytest.fixture
def member(known_engine):
    """An engine with one probability everywhere, which says when it holds memory."""

    def made(value: float, n_bytes: int, alive: list[float], lanes: int = 1):
        def answer(batch: np.ndarray) -> np.ndarray:
            return batch * 0 + np.float32(value)

        engine = known_engine(answer, lanes=lanes)
        engine.memory_bytes = lambda: n_bytes
        alive.append(value)
        weakref.finalize(engine, alive.remove, value)
        return engine

    return made


@pytest.mark.parametrize(
    ("n_bytes", "lanes", "kept", "need"),
    [
        # Those that need little stay; others are there in their turns, unless several are at work.
        (10_000_000, 1, [0.2, 0.9, 0.4], 30_000_000),
        (900_000_000, 1, [], 900_000_000),
        (900_000_000, 2, [0.2, 0.9, 0.4], 2_700_000_000),
    ],
)
def test_averages_and_tells_its_memory(rng, member, n_bytes, lanes, kept, need) -> None:
    alive: list[float] = []
    makers = [partial(member, value, n_bytes, alive, lanes) for value in (0.2, 0.9, 0.4)]
    engine = EnsembleEngine(makers)
    assert engine.memory_bytes() == need
    for _ in range(2):
        result = engine.run(rng.normal(size=(2, 1, 4, 4, 4)).astype(np.float32))
        np.testing.assert_allclose(result, 0.5, rtol=1e-6)
        gc.collect()
        assert alive == kept
    assert engine.passes == 3
    np.testing.assert_allclose(engine.scout().run(np.zeros((1, 1, 4, 4), np.float32)), 0.2)
