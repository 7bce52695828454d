"""Peak memory, per piece of work."""

from __future__ import annotations

import mmap
import sys

import psutil
import pytest

from leanseg.inference.memory import peak_memory_mb, reset_peak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can start afresh")
def test_the_peak_is_that_of_the_work_since_the_reset() -> None:
    if not reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    before = peak_memory_mb()
    assert before == pytest.approx(psutil.Process().memory_info().rss / 1e6, abs=5)
    # Straight from the system: an allocator may keep what it was given back.
    block = mmap.mmap(-1, 60_000_000)
    for start in range(0, len(block), mmap.PAGESIZE):
        block[start] = 1
    assert peak_memory_mb() == pytest.approx(before + 60, abs=6)
    block.close()
    assert peak_memory_mb() == pytest.approx(before + 60, abs=6)
    reset_peak()
    assert peak_memory_mb() < before + 30
