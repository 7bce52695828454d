"""How this machine trains best: allocator, threads, precision."""

from __future__ import annotations

import copy
import ctypes
import logging
import platform
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

logger = logging.getLogger(__name__)

# mallopt's parameter numbers, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_KEEP_BYTES = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20


def keep_large_blocks() -> bool:
    """Tell glibc's allocator to keep large blocks instead of returning them to the system.

    Activations of tens of megabytes are allocated and freed at every step; by default each of
    them is mapped anew and its pages are faulted in again, which costs more than the
    convolutions do.

    Returns:
        Whether the allocator took the settings (glibc alone has them).
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = (
        (_M_MMAP_THRESHOLD, _KEEP_BYTES),
        (_M_TRIM_THRESHOLD, _KEEP_BYTES),
        (_M_TOP_PAD, _TOP_PAD_BYTES),
    )
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in settings)


def choose_precision(
    network: nn.Module,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    classes: torch.Tensor,
) -> str:
    """The faster of "32" and "bf16-mixed", measured on training steps of a copy.

    Args:
        network: Copied; neither its weights nor its statistics change.
        loss: As the training's.
        image: A batch (batch, channel, row, column).
        classes: Its classes (batch, row, column).

    Returns:
        "bf16-mixed" only where it saves at least a tenth of the step.
    """
    trial = copy.deepcopy(network).train()
    seconds = {False: float("inf"), True: float("inf")}
    for repeat in range(3):
        for reduced in (False, True):
            started = time.perf_counter()
            with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=reduced):
                value = loss(trial(image), classes)
            value.backward()  # type: ignore[no-untyped-call]
            if image.device.type == "cuda":
                torch.cuda.synchronize()
            # The first round warms up and is not counted.
            if repeat:
                seconds[reduced] = min(seconds[reduced], time.perf_counter() - started)
    chosen = "bf16-mixed" if seconds[True] < 0.9 * seconds[False] else "32"
    logger.info("precision %s (32: %.3f s, bf16: %.3f s)", chosen, seconds[False], seconds[True])
    return chosen
