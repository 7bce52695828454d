"""Damaged inputs of every reader, odd paths in every command, and files that other libraries ship.

Each is answered as another library does, or refused in one sentence. `python
tests/robustness/table.py` prints the counts that docs/robustness.md has. It forks, which only a
process of its own that has no threads yet may do.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def counts(*options: str) -> list[int]:
    """The numbers in the last row of the table, after the inputs were all taken well."""
    table = Path(__file__).with_name("table.py")
    done = subprocess.run(
        [sys.executable, table, "--failures", *options], capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    (last,) = (line for line in done.stdout.splitlines() if line.startswith("| all |"))
    return [int(cell.replace(",", "")) for cell in last.split("|")[2:-1]]


def test_some_inputs_are_answered_or_refused() -> None:
    n, answered, unchecked, refused, *mistakes = counts("--small", "--processes", "1")
    assert answered > 50
    assert refused > 200
    assert not any(mistakes)
    assert n == answered + unchecked + refused


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_inputs_are_answered_or_refused() -> None:
    n, answered, _, refused, *mistakes = counts()
    assert n >= 20_000
    assert min(answered, refused) > 3_000
    assert not any(mistakes)
