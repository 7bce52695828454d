"""Damaged inputs of every reader: each is answered rightly or refused in one sentence.

`python tests/robustness/table.py` prints the counts that docs/robustness.md has.
"""

from __future__ import annotations

import pytest

from robustness.harness import GOOD, Result, Target, run
from robustness.table import failures, table, warm
from robustness.targets import TARGETS


def assert_good(results: list[Result]) -> None:
    assert all(result.outcome in GOOD for result in results), "\n".join(failures(results))
    # Were all refused, or all taken, half of the reader would not have been seen.
    assert {"refused"} < {result.outcome for result in results}


@pytest.mark.parametrize(
    "target", [target for target in TARGETS if target.small], ids=lambda target: target.name
)
def test_some_damaged_inputs_are_answered_or_refused(target: Target) -> None:
    warm()
    assert_good(run([target], lambda target: range(target.small)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_inputs_are_answered_or_refused() -> None:
    warm()
    results = run(TARGETS, lambda target: range(target.share), processes=2)
    print(table(results))
    assert len(results) >= 20_000
    assert_good(results)
