"""How the loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`njit` without the interpreter lock, kept on disk where there is a folder to write to."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        common = {"nogil": True, "error_model": "numpy", **options}
        result: Callable[..., Any]
        try:
            result = njit(cache=True, **common)(function)
        except RuntimeError:  # numba found no folder for its cache
            result = njit(**common)(function)
        return result

    return decorate
