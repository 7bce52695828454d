"""How many threads an engine gets, and how they are shared out."""

from __future__ import annotations

import os

# More inputs side by side than this gain little and take their memory each.
_MOST_LANES = 4


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_out(threads: int | None, lanes: int | None) -> tuple[int, int]:
    """Threads in all and lanes: whole inputs side by side before several threads to one.

    Threads that share one input wait for one another after every layer; lanes never do.
    """
    in_all = threads or usable_cores()
    return in_all, max(1, min(lanes or _MOST_LANES, in_all))
