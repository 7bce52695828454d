"""How many threads an engine gets, and how they are shared out."""

from __future__ import annotations

from leanseg.machine import usable_cores

# More inputs side by side than this gain little and take their memory each.
_MOST_LANES = 4


def shared_out(threads: int | None, lanes: int | None) -> tuple[int, int]:
    """Threads in all and lanes: whole inputs side by side before several threads to one.

    Threads that share one input wait for one another after every layer; lanes never do.
    """
    in_all = threads or len(usable_cores())
    return in_all, max(1, min(lanes or _MOST_LANES, in_all))
