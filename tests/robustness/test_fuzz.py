"""Damaged inputs of every reader, odd paths in every command, and files that other libraries ship.

Each is answered as another library does, or refused in one sentence. `python
tests/robustness/table.py` prints the counts that docs/robustness.md has.
"""

from __future__ import annotations

import pytest

from robustness import commands, shipped
from robustness.harness import GOOD, Target, run
from robustness.table import failures, table, warm
from robustness.targets import TARGETS

EVERY = (*TARGETS, commands.TARGET, shipped.TARGET)


@pytest.mark.parametrize(
    "target", [target for target in EVERY if target.small], ids=lambda target: target.name
)
def test_some_inputs_are_answered_or_refused(target: Target) -> None:
    warm()
    results = run([target], lambda target: range(0, target.share, target.share // target.small))
    assert not failures(results), "\n".join(failures(results))
    # Were all taken, nothing would have been seen.
    assert "refused" in {result.outcome for result in results}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_inputs_are_answered_or_refused() -> None:
    warm()
    results = run(EVERY, lambda target: range(target.share), processes=2)
    print("\n" + table(results))
    assert len(results) >= 20_000
    assert not failures(results), "\n".join(failures(results))
    assert {result.outcome for result in results} == set(GOOD)
