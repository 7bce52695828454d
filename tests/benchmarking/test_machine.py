"""What a benchmark says of the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import pytest

from leanseg.benchmarking.machine import describe_machine, machine_line, usable_cores


def test_the_machine():
    machine = describe_machine(("numpy", "no-such-package"))
    assert machine["processor"]
    assert machine["cores"] == len(usable_cores()) >= 1
    assert machine["versions"]["python"] == platform.python_version()
    assert machine["versions"]["numpy"] == version("numpy")
    assert machine["versions"]["no-such-package"] is None
    line = machine_line(machine)
    assert machine["processor"] in line and "numpy" in line and "no-such-package" not in line


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="POSIX alone has another way to ask")
def test_memory():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert describe_machine()["memory_bytes"] == pytest.approx(total, rel=0.01)
