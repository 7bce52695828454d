"""Lets the tests of networks import the tester that they inherit."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("network_tester")


def pytest_configure() -> None:
    """Drop compiled OBELISK loops that are older than any of their sources.

    numba compiles a function anew when its own file changes, not when one that it calls does.
    """
    folder = Path(__file__).parents[2] / "src" / "leanseg" / "networks"
    sources = list(folder.glob("obelisk_*.py"))
    newest = max((source.stat().st_mtime for source in sources), default=0)
    for kept in (folder / "__pycache__").glob("obelisk_*.nb[ic]"):
        if kept.stat().st_mtime < newest:
            kept.unlink(missing_ok=True)
