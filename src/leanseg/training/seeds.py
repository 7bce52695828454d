"""Seeds derived from (seed, purpose, counters) alone.

No generator lives longer than one sample, so neither the number of workers nor an interruption
changes what is drawn.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """What a derived seed is for; keeps the streams of one seed apart."""

    INITIALISATION = 0
    CASE_ORDER = 1
    SLICE = 2
    AUGMENTATION = 3
    DROPOUT = 4
    MEASUREMENT = 5
    FOREGROUND = 6
    POINTS = 7
    INTENSITY = 9


def derive_seed(seed: int, role: Role, *counters: int) -> int:
    """A 63-bit seed for one purpose at one place, from the run's seed."""
    sequence = np.random.SeedSequence([seed, int(role), *counters])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
