"""How much of a phase is behind, by answers of the clock that never agree with one another."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.training.pace import is_due, is_over, share_behind

# From which step on how many were left; the clock is asked at growing steps, none twice.
gaps = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 200)), min_size=1, max_size=6)


def knots(drawn: list[tuple[int, int]]) -> list[list[int]]:
    """Answers as the loop keeps them: none behind the end that an earlier one forecast."""
    found, step = [], 0
    for gap, left in drawn:
        step += gap
        if is_over(step, found):
            break
        found.append([step, left])
    return found


@given(gaps)
def test_the_share_grows_from_0_to_1(drawn) -> None:
    pace = knots(drawn)
    end = pace[-1][0] + pace[-1][1]
    shares = [share_behind(step, pace) for step in range(end + 3)]
    assert shares[0] == 0
    assert all(a <= b for a, b in itertools.pairwise(shares))
    assert shares[end] == pytest.approx(1)
    assert is_over(end, pace)
    assert not any(is_over(step, pace) for step in range(end))
    assert max(shares) <= 1


@given(gaps)
def test_what_is_behind_does_not_depend_on_later_answers(drawn) -> None:
    """So that a run which is replayed with all answers has the same rates."""
    pace = knots(drawn)
    for n in range(1, len(pace)):
        for step in range(pace[n][0]):
            assert share_behind(step, pace) == share_behind(step, pace[:n])


def test_by_hand() -> None:
    pace = [[1, 9], [4, 12]]
    # From step 1 on a ninth each; at step 4 a third is behind, and the rest is for 12 steps.
    assert share_behind(0, pace) == 0
    assert share_behind(3, pace) == pytest.approx(2 / 9)
    assert share_behind(4, pace) == pytest.approx(3 / 9)
    assert share_behind(10, pace) == pytest.approx(1 / 3 + 2 / 3 * 6 / 12)
    assert share_behind(16, pace) == pytest.approx(1)
    assert share_behind(5, []) == 0
    assert not is_over(5, [])
    assert is_over(7, [[7, 0]])
    assert share_behind(7, [[7, 0]]) == 1


def test_the_clock_is_asked_ever_more_rarely() -> None:
    assert [step for step in range(70) if is_due(step, [])] == [1, 2, 4, 8, 16, 32, 64]
    assert not is_due(8, [[8, 100]])
