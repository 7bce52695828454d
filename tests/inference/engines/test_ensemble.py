"""Several networks as one engine: the mean of probabilities, the memory of one or of all."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.inference.engines.ensemble import EnsembleEngine


@pytest.fixture
def member(known_engine):
    """An engine with one probability everywhere, which says when it holds memory."""

    def made(value: float, n_bytes: int, held: list[float], lanes: int, gives_back: bool):
        def answer(batch: np.ndarray) -> np.ndarray:
            held.append(value)
            return batch * 0 + np.float32(value)

        engine = known_engine(answer, lanes=lanes)
        engine.memory_bytes = lambda: n_bytes
        engine.shape = (2, 1, 4, 4, 4)

        def release() -> bool:
            held[:] = [other for other in held if other != value]
            return gives_back

        engine.release = release
        return engine

    return made


@pytest.mark.parametrize(
    ("n_bytes", "lanes", "gives_back", "kept", "need"),
    [
        # Little memory is kept by all; much of it is given back, unless others may be at work.
        (10_000_000, 1, True, [0.2, 0.9, 0.4], 30_000_000),
        (900_000_000, 1, True, [], 900_000_000),
        (900_000_000, 2, True, [0.2, 0.9, 0.4], 2_700_000_000),
        (900_000_000, 1, False, [0.2, 0.9, 0.4], 2_700_000_000),
    ],
)
def test_averages_and_tells_its_memory(rng, member, n_bytes, lanes, gives_back, kept, need) -> None:
    held: list[float] = []
    members = [member(value, n_bytes, held, lanes, gives_back) for value in (0.2, 0.9, 0.4)]
    engine = EnsembleEngine(members, n_outputs=3)
    # And the sum of probabilities so far.
    assert engine.memory_bytes() == need + lanes * 4 * 2 * 3 * 4**3
    result = engine.run(rng.normal(size=(2, 1, 4, 4, 4)).astype(np.float32))
    np.testing.assert_allclose(result, 0.5, rtol=1e-6)
    assert held == kept
    assert engine.passes == 3
    assert engine.scout() is members[0]
