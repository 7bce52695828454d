"""The allocator's settings hold in the process that asked for them."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from leanseg.runtime import return_freed_memory

# Blocks of 40 MB, freed and taken again: the pages of the first are faulted in once, and then
# either kept (no new faults) or faulted in anew every time.
FAULTS = """
import resource, sys
import numpy as np
from leanseg.runtime import keep_large_blocks
assert sys.argv[1] == "default" or keep_large_blocks()
for repeat in range(6):
    if repeat == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(40_000_000, dtype=np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="only glibc has mallopt",
)
def test_freed_blocks_are_kept() -> None:
    faults = {
        setting: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, setting], capture_output=True, text=True, check=True
            ).stdout
        )
        for setting in ("default", "kept")
    }
    assert faults["kept"] * 5 < faults["default"]


def test_freed_memory_goes_back_where_it_can() -> None:
    assert return_freed_memory() == (platform.libc_ver()[0] == "glibc")
