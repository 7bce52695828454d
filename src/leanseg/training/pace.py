"""How much of a phase is behind: by steps, or where minutes are given, by what the clock said.

The clock is asked now and then how many steps will still fit. Between two answers the share grows
evenly with the steps, so that answers and steps alone determine it: with the same answers, which
are kept, the same rates and the same weights come out, whatever the clock says then.
"""

from __future__ import annotations

from collections.abc import Sequence


def share_behind(step: int, pace: Sequence[Sequence[int]]) -> float:
    """Share of a phase that is behind after some steps.

    Args:
        step: Steps done.
        pace: From which step on how many steps were left, ascending; none before the first.
    """
    share, since, left = 0.0, 0, 0
    for number, (start, steps_left) in enumerate(pace):
        if start > step:
            break
        if number:
            share += (1 - share) * min((start - since) / left, 1.0) if left else 1 - share
        since, left = start, steps_left
    if not pace or pace[0][0] > step:
        return 0.0
    return 1.0 if not left else share + (1 - share) * min((step - since) / left, 1.0)


def is_over(step: int, pace: Sequence[Sequence[int]]) -> bool:
    """Whether no steps are left by the last answer."""
    return bool(pace) and step >= pace[-1][0] + pace[-1][1]


def is_due(step: int, pace: Sequence[Sequence[int]]) -> bool:
    """Whether the clock is to be asked after some steps: often at first, then ever more rarely."""
    return step > 0 and step & (step - 1) == 0 and not any(start == step for start, _ in pace)
