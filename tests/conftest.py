"""Fixtures shared by all rooms."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Half of the usual number where a test does not say how many: the suite has to stay short.
settings.register_profile("quick", max_examples=50)

# Lightning looks for plugins among all that is installed, several times in each training.
importlib.metadata.entry_points = cache(importlib.metadata.entry_points)

# Files that take longest start first, so that two workers (`make test`) end at the same time.
LONGEST = (
    "training/test_every_network.py",
    "test_without_torch.py",
    "training/planning/test_planner.py",
    "test_faults.py",
    "test_public.py",
    "robustness/test_fuzz.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the files that take longest to the front."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every garbage collection.

    PyTorch and its like are a million objects; statsmodels, for one, collects at each call.
    """
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Drop compiled loops that are older than any source of loops.

    numba compiles a function anew when its own file changes, not when one that it calls does.
    """
    if config.getoption("markexpr") == "not slow":
        settings.load_profile("quick")
    if hasattr(config, "workerinput"):  # the process that starts the workers has done it
        return
    source = Path(__file__).resolve().parents[1] / "src" / "leanseg"
    loops = [*source.glob("kernels/*.py"), *source.glob("networks/obelisk*.py")]
    newest = max(path.stat().st_mtime for path in loops)
    for kept in source.rglob("__pycache__/*.nb[ic]"):
        if kept.stat().st_mtime < newest:
            kept.unlink()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the project; tests that ask for it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LEANSEG_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"the real scans are not at {folder} (set LEANSEG_SHARED_DATA)")
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures and pictures, which take longest; for tests of their words."""
    monkeypatch.setattr("leanseg.reports.run_report.svg_address", lambda figure: "data:,")
    monkeypatch.setattr("leanseg.reports.run_report.slice_png", lambda *_, **__: b"")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session", autouse=True)
def _single_thread() -> None:
    """One thread per test process: two of them run side by side on two cores."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _operators_are_listed_once() -> None:
    """The exporter parses the source of every operator it knows, anew for each network."""
    try:
        from torch.onnx._internal._lazy_import import onnxscript_apis as operators
    except ImportError:
        return
    # Only looked up when it is called: importing them takes a second.
    listed = type(operators).__getattr__
    operators.get_torchlib_ops = cache(lambda: listed(operators, "get_torchlib_ops")())


@pytest.fixture(scope="session", autouse=True)
def _nothing_waits_for_the_disk() -> Iterator[None]:
    """No test looks at a disk after a power cut; tests/test_faults.py counts every fsync."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_as_in_a_terminal() -> None:
    """Handle SIGINT though a shell's background job (`make test &`) inherits it as ignored.

    Commands that tests start would inherit it too, and could not be interrupted.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
