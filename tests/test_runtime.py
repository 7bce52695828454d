"""The allocator's settings."""

from __future__ import annotations

import platform
import sys

import pytest

from leanseg.runtime import keep_large_blocks


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="only glibc has mallopt",
)
def test_the_allocator_takes_the_settings() -> None:
    assert keep_large_blocks() is True


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_large_blocks() is False
