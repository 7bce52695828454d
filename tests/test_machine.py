"""What a benchmark says of the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import pytest

from leanseg.machine import this_machine, usable_cores


def test_the_machine():
    machine = this_machine()
    assert machine.cores == len(usable_cores()) >= 1
    assert machine.versions["python"] == platform.python_version()
    assert machine.versions["numpy"] == version("numpy")
    assert machine.processor
    assert machine.processor in str(machine) and f"numpy {version('numpy')}" in str(machine)


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="POSIX alone has another way to ask")
def test_memory():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert this_machine().memory_bytes == pytest.approx(total, rel=0.01)
