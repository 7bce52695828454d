"""What a process does with the machine: the memory that it keeps, and threads side by side."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from leanseg.errors import RecipeError

# mallopt's parameter numbers, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_KEEP_BYTES = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int
) -> Generator[_Result]:
    """Results in the order of the items, whoever computes them.

    Args:
        function: Spends its time in libraries that let other threads run.
        items: What it is called with.
        workers: Threads; 0 works in this one.

    Raises:
        RecipeError: If the number of workers is negative.
    """
    if workers < 0:
        raise RecipeError(f"workers is {workers}; choose 0 or more")
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def keep_large_blocks() -> bool:
    """Tell glibc's allocator to keep large blocks instead of returning them to the system.

    Activations of tens of megabytes are allocated and freed layer by layer; by default each of
    them is mapped anew and its pages are faulted in again, which costs more than the
    convolutions do.

    Returns:
        Whether the allocator took the settings (glibc alone has them).
    """
    if not _has_glibc():
        return False
    libc = ctypes.CDLL(None)
    settings = (
        (_M_MMAP_THRESHOLD, _KEEP_BYTES),
        (_M_TRIM_THRESHOLD, _KEEP_BYTES),
        (_M_TOP_PAD, _TOP_PAD_BYTES),
    )
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in settings)


def return_freed_memory() -> bool:
    """Tell glibc's allocator to give what was freed back to the system.

    Returns:
        Whether it could be told (glibc's alone can).
    """
    if not _has_glibc():
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _has_glibc() -> bool:
    return sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
